package workflow

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const languageDoc = "../docs/language.md"

// The part of docs/language.md between these lines is generated.
const (
	docStart = "<!-- keys: generated from workflow/keys.go by `make generate` -->\n"
	docEnd   = "<!-- end of keys -->\n"
)

// TestLanguageDocIsFresh: the tables of docs/language.md are what the table of keys says.
func TestLanguageDocIsFresh(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(languageDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), docStart)
	_, after, ok2 := strings.Cut(rest, docEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no part between %q and %q", languageDoc, docStart, docEnd)
	}
	fresh(t, languageDoc, []byte(before+docStart+keyTables()+docEnd+after))
}

// headings of the maps of the language.
var headings = map[string]string{
	inWorkflow: "Top-level keys", inStep: "Keys of a step", inInput: "Keys of an input", inSecret: "Keys of a secret",
	inSandbox: "Keys of sandbox", inPool: "Keys of sandbox.pool", inLimits: "Keys of sandbox.limits", inWorkspace: "Keys of workspace", inDefaults: "Keys of defaults", inRetry: "Keys of retry",
	inAgent: "Keys of agent", inBudget: "Keys of budget",
	inNetwork: "Keys of network", inHost: "Keys of an entry of allow", inInject: "Keys of inject",
	inStepSecret: "Keys of a secret that a step is given",
	inLint:       "Keys of lint", inLintOff: "Keys of a row of lint.off",
}

func keyTables() string {
	var b strings.Builder
	for _, in := range maps() {
		if in == inAgentDefaults || in == inNamedSandbox {
			continue
		}
		title := headings[in]
		if title == "" {
			title = "Keys of " + in
		}
		fmt.Fprintf(&b, "\n### %s\n| key | value | default | meaning | example |\n|---|---|---|---|---|\n", title)
		for _, k := range keysets()[in].rows {
			if !k.Supported {
				continue
			}
			name := "`" + k.Name + "`"
			if k.Required {
				name += " (required)"
			}
			if k.Kind {
				name += " (kind)"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | `%s` |\n", name, cell(valueWords(k)), code(k.Default), cell(k.Doc), strings.ReplaceAll(k.Example, "|", `\|`))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func valueWords(k Key) string {
	switch {
	case len(k.Enum) > 0:
		words := string(k.Type) + " " + code(strings.Join(k.Enum, "`, `"))
		return words
	case k.Type == typeInt:
		return fmt.Sprintf("integer, %d to %d", k.Min, k.Max)
	}
	return string(k.Type)
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

package report

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"flowrun.dev/flow/workflow"
)

// Checked is what validation said about one file.
type Checked struct {
	File        string                `json:"file"`
	Steps       int                   `json:"steps"`
	Diagnostics []workflow.Diagnostic `json:"diagnostics"`
}

// GitHub writes diagnostics as workflow commands of GitHub Actions: each becomes
// an annotation at its line. What stands in them is escaped as the commands ask.
func GitHub(w io.Writer, files []Checked) error {
	for _, f := range files {
		for _, d := range f.Diagnostics {
			text := d.Message
			for _, more := range details(d) {
				text += "\n" + more
			}
			end := ""
			if d.EndCol > d.Pos.Col {
				end = fmt.Sprintf(",endColumn=%d", d.EndCol)
			}
			if _, err := fmt.Fprintf(w, "::%s file=%s,line=%d,col=%d%s,title=%s::%s\n", d.Severity, property(f.File), d.Pos.Line, d.Pos.Col, end, property(d.Rule), data(text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// details are the further lines of a diagnostic.
func details(d workflow.Diagnostic) []string {
	var out []string
	if len(d.Expected) > 0 {
		out = append(out, "expected one of: "+strings.Join(d.Expected, ", "))
	}
	if d.Suggestion != "" {
		out = append(out, fmt.Sprintf("did you mean %q?", d.Suggestion))
	}
	if d.Hint != "" {
		out = append(out, d.Hint)
	}
	return out
}

func data(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func property(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

// The parts of SARIF 2.1.0 that are used.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID      string       `json:"id"`
		Short   *sarifText   `json:"shortDescription,omitempty"`
		Full    *sarifText   `json:"fullDescription,omitempty"`
		Config  *sarifConfig `json:"defaultConfiguration,omitempty"`
		HelpURI string       `json:"helpUri,omitempty"`
	}
	sarifConfig struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn"`
		EndColumn   int `json:"endColumn,omitempty"`
	}
)

const (
	sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	homePage    = "https://flowrun.dev"
	rulesPage   = homePage + "/docs/rules.md"
)

// SARIF writes diagnostics as one run of SARIF 2.1.0. Columns count characters.
func SARIF(w io.Writer, version string, files []Checked) error {
	run := sarifRun{Tool: sarifTool{sarifDriver{Name: "flow", Version: version, InformationURI: homePage, Rules: []sarifRule{}}}, ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	index := map[string]int{}
	for _, r := range workflow.Rules() {
		index[r.Name] = len(run.Tool.Driver.Rules)
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{ID: r.Name, Short: &sarifText{r.Summary}, Full: &sarifText{r.Doc},
			Config: &sarifConfig{string(r.Severity)}, HelpURI: rulesPage + "#" + r.Name})
	}
	for _, f := range files {
		for _, d := range f.Diagnostics {
			i, ok := index[d.Rule]
			if !ok { // a mistake of form: it has a name and no page
				i = len(run.Tool.Driver.Rules)
				index[d.Rule] = i
				run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{ID: d.Rule, Config: &sarifConfig{string(d.Severity)}})
			}
			region := sarifRegion{StartLine: d.Pos.Line, StartColumn: d.Pos.Col}
			if d.EndCol > d.Pos.Col {
				region.EndColumn = d.EndCol
			}
			text := strings.Join(append([]string{d.Message}, details(d)...), "\n")
			run.Results = append(run.Results, sarifResult{RuleID: d.Rule, RuleIndex: i, Level: string(d.Severity), Message: sarifText{text},
				Locations: []sarifLocation{{sarifPhysical{sarifArtifact{fileURI(f.File)}, region}}}})
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(sarifLog{sarifSchema, "2.1.0", []sarifRun{run}})
}

// fileURI is a path as a relative or file: URI.
func fileURI(name string) string {
	var b strings.Builder
	if filepath.IsAbs(name) {
		b.WriteString("file://")
	}
	for _, c := range []byte(filepath.ToSlash(name)) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("/-._~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

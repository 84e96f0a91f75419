package workflow

// Context is a map of the language as the parser meets it: the `In` of the table
// of keys.
type Context = string

const (
	ctxTop       = inWorkflow
	ctxInput     = inInput
	ctxSecret    = inSecret
	ctxSandbox   = inSandbox
	ctxLimits    = inLimits
	ctxWorkspace = inWorkspace
	ctxDefaults  = inDefaults
	ctxStep      = inStep
	ctxReady     = inReady
	ctxMount     = inMount
	ctxRetry     = inRetry
	ctxBatch     = inBatch
	ctxRepeat    = inRepeat
	ctxNeeds     = inNeeds
	ctxAgent     = inAgent
	ctxApprove   = inApprove
	ctxBudget    = inBudget
)

// profiles are the presets of allowed_tools (practice 9).
var profiles = map[string][]string{
	"code_generation": {"Bash", "Write", "Read", "Edit", "Glob", "Grep"},
	"code_analysis":   {"Read", "Glob", "Grep"},
	"data_processing": {"Bash", "Read", "Write"},
	"default":         {"Bash", "Read", "Write"},
}

// key finds a row of the table.
func key(c Context, name string) (Key, bool) {
	if k := keyOf(c, name); k != nil {
		return *k, true
	}
	return Key{}, false
}

// supported lists the names that may stand in a context.
func supported(c Context) []string { return keysets()[c].names }

// profileNames lists the presets.
func profileNames() []string { return keysOf(profiles) }

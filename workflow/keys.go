package workflow

// Key is one row of the table of keys: the one place where a key of the language
// is defined. The parser, schema.json and the tables of docs/language.md come
// from it; tests fail when they differ.
type Key struct {
	In   string  // the map that it belongs to: workflow, input, step, …
	Name string  //
	Type KeyType //
	Of   string  // the map behind a value of type object, objects or named
	Enum []string
	// Later are values of the language that do not work yet.
	Later    []string
	Min, Max int // of integers
	Default  string
	Required bool
	Kind     bool // one of the keys that say what a step does
	Doc      string
	Example  string
	Since    string // the first version with it
	// Supported is false for a key of the language that does not work yet: it is
	// rejected by name and absent from the schema.
	Supported bool
}

// KeyType is the shape of a key's value.
type KeyType string

const (
	typeText      KeyType = "string"
	typeTemplate  KeyType = "string with ${{ }}"
	typePath      KeyType = "path"
	typeID        KeyType = "id"
	typeName      KeyType = "name"
	typeBool      KeyType = "boolean"
	typeInt       KeyType = "integer"
	typeNumber    KeyType = "number"
	typeDuration  KeyType = "duration"
	typeEnum      KeyType = "one of"
	typeExpr      KeyType = "expression"
	typeAny       KeyType = "value"
	typeSchema    KeyType = "JSON Schema"
	typeFiles     KeyType = "list of files"
	typeProfile   KeyType = "name of a profile"
	typeAnys      KeyType = "list of values"
	typeStrings   KeyType = "list of strings"
	typeIDs       KeyType = "list of ids"
	typeNames     KeyType = "list of names"
	typeTools     KeyType = "list of tools"
	typeEnums     KeyType = "list of"
	typeEnv       KeyType = "map of settings"
	typeHeaders   KeyType = "map of headers"
	typeOutputs   KeyType = "map of outputs"
	typeObject    KeyType = "map"
	typeNamed     KeyType = "map of maps"
	typeSession   KeyType = "new, or continue STEP"
	typeServers   KeyType = "map of servers"
	typeSteps     KeyType = "list of steps"
	typeMaps      KeyType = "list of maps"
	typeInside    KeyType = "path in the sandbox"
	typeSecrets   KeyType = "list of names or maps"
	typeRun       KeyType = "script or list"
	typeAgent     KeyType = "prompt or map"
	typeAccess    KeyType = "word or list of paths"
	typeSize      KeyType = "size"
	typeCache     KeyType = "true or map"
	typeForeach   KeyType = "list, expression or map of lists"
	typeWords     KeyType = "list of words" // that grant something: nothing but strings
	typeSandbox   KeyType = "`fresh` or a name"
	typeApprove   KeyType = "message or map"
	typeChoices   KeyType = "list of choices"
	typeWith      KeyType = "map of values"
	typeNeeds     KeyType = "list of ids, or map"
	typeUndefined KeyType = ""
)

// Shapes of network and of a step's secrets.
const (
	typeStepSecrets KeyType = "list of names, or of maps"
	typeNetwork     KeyType = "map, or one of"
	typeHosts       KeyType = "list of hosts or maps"
	typePorts       KeyType = "list of ports"
)

// Maps of network and secrets.
const (
	inInject     = "inject"
	inNetwork    = "network"
	inHost       = "host"
	inStepSecret = "step_secret" // one that a step is given
)

// The maps of the language.
const (
	inWorkflow  = "workflow"
	inInput     = "input"
	inSecret    = "secret"
	inSandbox   = "sandbox"
	inPool      = "pool"
	inLimits    = "limits"
	inWorkspace = "workspace"
	inDefaults  = "defaults"
	inStep      = "step"
	inReady     = "ready"
	inMount     = "mounts"
	inRetry     = "retry"
	inCache     = "cache"
	inLint      = "lint"
	inLintOff   = "lint.off"
	inBatch     = "batch"
	inRepeat    = "repeat"
	inNeeds     = "needs"
	inAgent     = "agent"
	inApprove   = "approve"
	inBudget    = "budget"
	inMCP       = "mcp_server"
	// inAgentDefaults has the rows of agent without those that belong to one step.
	inAgentDefaults = "defaults.agent"
	// inNamedSandbox has the rows of sandbox without those that concern the whole run.
	inNamedSandbox = "sandboxes"
)

const inConcurrency = "concurrency"

const v01 = "0.1"

// Keys returns the table of keys, in the order of the documentation.
func Keys() []Key {
	rows := supportedKeys()
	for i := range rows {
		rows[i].Supported, rows[i].Since = true, v01
	}
	return append(rows, laterKeys()...)
}

func supportedKeys() []Key {
	return []Key{
		{In: inWorkflow, Name: "name", Type: typeText, Required: true, Doc: "The workflow's name in records and reports.", Example: "checks"},
		{In: inWorkflow, Name: "description", Type: typeText, Doc: "What the workflow is for, for people.", Example: "Format, vet and test"},
		{In: inWorkflow, Name: "inputs", Type: typeNamed, Of: inInput, Doc: "Typed values that a call gives with `-i name=value`.", Example: "{mode: {type: string, default: quick}}"},
		{In: inWorkflow, Name: "env", Type: typeEnv, Doc: "Plain settings for all steps; stored, shown and hashed.", Example: "{CI: \"true\"}"},
		{In: inWorkflow, Name: "secrets", Type: typeSecrets, Of: inSecret, Doc: "Names of secrets; a step gets only those that it names. Values never stand in the file.", Example: "[API_TOKEN]"},
		{In: inWorkflow, Name: "sandbox", Type: typeObject, Of: inSandbox, Doc: "Where the steps run.", Example: "{driver: local}"},
		{In: inWorkflow, Name: "sandboxes", Type: typeNamed, Of: inNamedSandbox, Doc: "Other sandboxes by name, with the keys of `sandbox` (nothing is taken from there). A step that says `sandbox: NAME` runs in it: it is made when the first one starts, and the workspace and the home go there and come back.", Example: "{online: {network: full}}"},
		{In: inWorkflow, Name: "workspace", Type: typeObject, Of: inWorkspace, Doc: "The files that the steps work on; empty when absent.", Example: "{from: .}"},
		{In: inWorkflow, Name: "defaults", Type: typeObject, Of: inDefaults, Doc: "Values for steps that do not say otherwise.", Example: "{timeout: 5m}"},
		{In: inWorkflow, Name: "timeout", Type: typeDuration, Doc: "Time limit of the whole run; none when absent.", Example: "1h"},
		{In: inWorkflow, Name: "max_parallel", Type: typeInt, Min: 1, Max: 1000, Default: "5", Doc: "How many steps may run at the same time.", Example: "2"},
		{In: inWorkflow, Name: "budget", Type: typeObject, Of: inBudget, Doc: "What all agents of the run may spend together, over all its resumes.", Example: "{cost_usd: 5}"},
		{In: inWorkflow, Name: "concurrency", Type: typeObject, Of: inConcurrency, Doc: "At most one run of a group at a time, on this machine and in this state directory; others wait before they start.", Example: "{group: deploy}"},
		{In: inWorkflow, Name: "fail_fast", Type: typeBool, Default: "false", Doc: "The first failure stops the whole run. Without it, branches that do not need the failed step go on.", Example: "true"},
		{In: inWorkflow, Name: "profiles", Type: typeNamed, Of: inAgentDefaults, Doc: "Names for sets of agent keys; a step's `profile` takes one, its own keys win.", Example: "{reviewer: {allowed_tools: [Read], max_turns: 10}}"},
		{In: inWorkflow, Name: "steps", Type: typeSteps, Of: inStep, Required: true, Doc: "What is done; see the keys of a step.", Example: "[{id: hello, run: echo hello}]"},
		{In: inWorkflow, Name: "on_failure", Type: typeSteps, Of: inStep, Doc: "Steps that run, one after the other, when the run failed; before `finally`.", Example: "[{id: tell, run: echo failed}]"},
		{In: inWorkflow, Name: "finally", Type: typeSteps, Of: inStep, Doc: "Steps that run at the end of a run, one after the other, however it ended.", Example: "[{id: bye, run: echo bye}]"},
		{In: inWorkflow, Name: "outputs", Type: typeOutputs, Doc: "Results of the run, computed when it succeeded.", Example: "{version: \"${{ steps.build.outputs.version }}\"}"},
		{In: inWorkflow, Name: "mounts", Type: typeMaps, Of: inMount, Doc: "Folders or files of this machine that every sandbox of the run shows, read-only.", Example: "[{host: ~/models, to: /data/models}]"},
		{In: inWorkflow, Name: "artifacts", Type: typeStrings, Doc: "Files of the workspace that are kept with the run at its end, however it ended: globs, folders, `!glob` for what is left out. `flow export RUN DIR --artifacts` brings them out.", Example: "[bin/*, report.xml]"},

		{In: inWorkflow, Name: "lint", Type: typeObject, Of: inLint, Doc: "Switches static checks off, each with a reason; see docs/rules.md.", Example: "{off: [{rule: unused-input, why: called by an older script}]}"},

		{In: inConcurrency, Name: "group", Type: typeTemplate, Required: true, Doc: "The group's name; of any workflow. Inputs and `run.workflow` may stand in it.", Example: "\"deploy-${{ inputs.environment }}\""},
		{In: inConcurrency, Name: "cancel_in_progress", Type: typeBool, Default: "false", Doc: "A new run cancels the one that has the group, and starts when that has ended; the newest wins.", Example: "true"},

		{In: inLint, Name: "off", Type: typeMaps, Of: inLintOff, Doc: "The rules that are off for this file.", Example: "[{rule: unused-input, why: called by an older script}]"},
		{In: inLintOff, Name: "rule", Type: typeEnum, Enum: offNames(), Required: true, Doc: "The rule's name.", Example: "unused-input"},
		{In: inLintOff, Name: "why", Type: typeText, Required: true, Doc: "The reason, for the next reader.", Example: "called by an older script"},

		{In: inInput, Name: "type", Type: typeEnum, Enum: []string{"string", "number", "integer", "boolean", "array", "object"}, Default: "string", Doc: "The type of the value.", Example: "integer"},
		{In: inInput, Name: "description", Type: typeText, Doc: "What the input means, for people.", Example: "How thorough"},
		{In: inInput, Name: "required", Type: typeBool, Default: "false", Doc: "The call has to give it. An input is either required or has a default.", Example: "true"},
		{In: inInput, Name: "default", Type: typeAny, Doc: "The value when the call gives none.", Example: "quick"},
		{In: inInput, Name: "enum", Type: typeAnys, Doc: "The only values allowed.", Example: "[quick, full]"},
		{In: inInput, Name: "pattern", Type: typeText, Doc: "A regular expression (RE2) that a string has to match somewhere; anchor it with ^ and $.", Example: "^[a-z]+$"},

		{In: inSecret, Name: "name", Type: typeName, Required: true, Doc: "The secret's name, and its variable's in the steps that name it.", Example: "API_TOKEN"},
		{In: inSecret, Name: "env", Type: typeName, Doc: "The variable that holds it (in `--env-file` or the environment); default: its name.", Example: "CI_API_TOKEN"},
		{In: inSecret, Name: "file", Type: typePath, Doc: "The file that holds it, relative to the workflow file.", Example: "../token.txt"},

		{In: inSecret, Name: "inject", Type: typeObject, Of: inInject, Doc: "Binds the secret to one host: steps get a placeholder, and flow puts the value into their requests to that host, outside of the sandbox.", Example: "{host: api.example.com, format: \"Bearer {}\"}"},

		{In: inInject, Name: "host", Type: typeText, Required: true, Doc: "The one host whose requests carry the value, over TLS only; `host:port` for another port than 443. The step's `network` has to allow it.", Example: "api.example.com"},
		{In: inInject, Name: "header", Type: typeText, Default: "Authorization", Doc: "The header that carries it; what the program wrote there is replaced.", Example: "X-Api-Key"},
		{In: inInject, Name: "format", Type: typeText, Doc: "The header's text, in which `{}` stands for the value; default: the value alone.", Example: "Bearer {}"},

		{In: inSandbox, Name: "driver", Type: typeEnum, Enum: []string{"auto", "local", "host"}, Later: []string{"docker", "e2b"}, Default: "auto", Doc: "`local`: namespaces on this machine; `host`: no isolation, by explicit word only; `auto`: the best isolation there is, never `host`.", Example: "local"},
		{In: inSandbox, Name: "require", Type: typeEnum, Enum: []string{"strong", "any"}, Default: "any", Doc: "`strong`: only isolation by namespaces; a machine that has only the landlock tier, or driver `host`, is refused. `any`: the strongest that starts here.", Example: "strong"},
		{In: inSandbox, Name: "network", Type: typeNetwork, Of: inNetwork, Enum: []string{"none", "full"}, Default: "none", Doc: "What the steps can reach that do not say it themselves.", Example: "{allow: [example.com]}"},
		{In: inSandbox, Name: "limits", Type: typeObject, Of: inLimits, Doc: "What everything in the sandbox may take together. What this machine cannot enforce is refused before anything starts.", Example: "{memory: 4GiB, pids: 512}"},
		{In: inSandbox, Name: "mounts", Type: typeMaps, Of: inMount, Doc: "What this sandbox shows of the machine, read-only, beside the `mounts` of the file.", Example: "[{host: ~/models, to: /data/models}]"},
		{In: inSandbox, Name: "reuse", Type: typeEnum, Enum: []string{"run", "step", "pool"}, Default: "run", Doc: "`run`: one sandbox serves all steps. `step`: each step gets a new one, with the workspace as it is and an empty home. `pool`: a few serve the steps in turn; each step finds what it would in a new one.", Example: "pool"},
		{In: inSandbox, Name: "pool", Type: typeObject, Of: inPool, Doc: "Of `reuse: pool`: how many there are.", Example: "{size: 3, warm: true}"},
		{In: inSandbox, Name: "max_sandboxes", Type: typeInt, Min: 1, Max: 1000, Doc: "How many sandboxes the run may have at the same time, of all kinds; steps wait for one. Default: one for each step that may run at the same time (`max_parallel`), the run's own, and the pools.", Example: "5"},
		{In: inSandbox, Name: "timeout", Type: typeDuration, Doc: "How long one sandbox may live; as long as the run when absent. Between steps one without enough time left is renewed from the checkpoint; a step that is in it when its time is over is tried again in a new one, and times out if it had the whole time.", Example: "1h"},

		{In: inPool, Name: "size", Type: typeInt, Min: 1, Max: 1000, Default: "3", Doc: "How many sandboxes.", Example: "3"},
		{In: inPool, Name: "warm", Type: typeBool, Default: "false", Doc: "All are made before the first step that needs one runs; else each when it is needed.", Example: "true"},

		{In: inNetwork, Name: "allow", Type: typeHosts, Of: inHost, Required: true, Doc: "The only hosts that can be reached: `example.com`, `*.example.com` (names below it), an IP address, each with an optional `:port` (else 80 and 443). Addresses of this machine, link-local ones and those of cloud metadata never can.", Example: "[example.com, \"*.example.org:443\"]"},

		{In: inHost, Name: "host", Type: typeText, Required: true, Doc: "The host, as in the short form.", Example: "api.example.com"},
		{In: inHost, Name: "ports", Type: typePorts, Min: 1, Max: 65535, Default: "[80, 443]", Doc: "The ports.", Example: "[443, 8443]"},
		{In: inHost, Name: "methods", Type: typeEnums, Enum: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, Doc: "The only HTTP methods. Plain HTTP, and hosts to which a secret of the step is bound; other TLS is then refused.", Example: "[GET, HEAD]"},
		{In: inHost, Name: "paths", Type: typeStrings, Doc: "The only paths; `*` stands for any text. As `methods`.", Example: "[/v1/*]"},

		{In: inLimits, Name: "cpus", Type: typeNumber, Max: 1024, Doc: "Processors, as a number above 0 with at most two decimals; needs control groups.", Example: "1.5"},
		{In: inLimits, Name: "memory", Type: typeSize, Doc: "Memory of all processes and of what they keep in /tmp; needs control groups.", Example: "4GiB"},
		{In: inLimits, Name: "pids", Type: typeInt, Min: 16, Max: 4194304, Default: "4096", Doc: "Processes and threads at the same time.", Example: "512"},
		{In: inLimits, Name: "file_size", Type: typeSize, Doc: "The largest file that may be written.", Example: "1GiB"},
		{In: inLimits, Name: "open_files", Type: typeInt, Min: 64, Max: 1048576, Doc: "Open files of one process.", Example: "1024"},
		{In: inLimits, Name: "tmp", Type: typeSize, Doc: "Size of each scratch folder (/tmp, /var/tmp, /dev/shm); default: half of `memory` where that is set, else half of the machine's memory.", Example: "512MiB"},
		{In: inLimits, Name: "disk", Type: typeSize, Doc: "Size of the workspace and the home, measured while a step runs, which ends when it is exceeded.", Example: "10GiB"},

		{In: inWorkspace, Name: "from", Type: typePath, Doc: "The folder that the workspace starts as a copy of, relative to the project's root.", Example: "."},
		{In: inWorkspace, Name: "exclude", Type: typeStrings, Doc: "What is not copied, in the patterns of .gitignore.", Example: "[node_modules/]"},
		{In: inWorkspace, Name: "apply", Type: typeEnum, Enum: []string{"never", "on_success", "always"}, Default: "never", Doc: "When the workspace's changes are brought back into `from`.", Example: "on_success"},

		{In: inWorkspace, Name: "path", Type: typePath, Doc: "The folder in the workspace that `from` is copied into, and its changes are brought back from; default: the workspace itself. Steps start in the workspace all the same (`cwd`).", Example: "src/project"},
		{In: inWorkspace, Name: "in_place", Type: typeBool, Default: "false", Doc: "The workspace is `from` itself and no copy. Only with driver host, whose steps then run one at a time; the files are in no checkpoint, so that nothing can put them back.", Example: "true"},

		{In: inDefaults, Name: "timeout", Type: typeDuration, Doc: "`timeout` of the steps.", Example: "5m"},
		{In: inDefaults, Name: "retry", Type: typeObject, Of: inRetry, Doc: "`retry` of the steps; a step's own replaces it as a whole.", Example: "{max_attempts: 2}"},
		{In: inDefaults, Name: "shell", Type: typeEnum, Enum: []string{"bash", "sh", "python", "node"}, Doc: "`shell` of the steps.", Example: "sh"},
		{In: inDefaults, Name: "cwd", Type: typeTemplate, Doc: "`cwd` of the steps.", Example: "server"},
		{In: inDefaults, Name: "env", Type: typeEnv, Doc: "Settings of the steps, after the file's `env` and before the step's.", Example: "{GOFLAGS: -mod=mod}"},
		{In: inDefaults, Name: "agent", Type: typeObject, Of: inAgentDefaults, Doc: "Keys of `agent` for every agent step (all but the prompt).", Example: "{max_turns: 20}"},

		{In: inStep, Name: "id", Type: typeID, Required: true, Doc: "The step's name in expressions, `needs` and records: small letters, digits and underscores.", Example: "unit_tests"},
		{In: inStep, Name: "name", Type: typeText, Doc: "A title for people.", Example: "Unit tests"},
		{In: inStep, Name: "run", Type: typeRun, Kind: true, Doc: "A script for the step's shell, or a command as a list of words that no shell reads.", Example: "make test"},
		{In: inStep, Name: "agent", Type: typeAgent, Of: inAgent, Kind: true, Doc: "One conversation of a coding agent: its prompt, or a map.", Example: "{prompt: Write a README, allowed_tools: [Read, Write]}"},
		{In: inStep, Name: "steps", Type: typeSteps, Of: inStep, Kind: true, Doc: "A group: steps in order, which start and end as one. Its `env` and `cwd` are those of its steps.", Example: "[{id: format, run: make format}, {id: vet, run: make vet}]"},
		{In: inStep, Name: "approve", Type: typeApprove, Of: inApprove, Kind: true, Doc: "Waits for a person: the message that they read, or a map. `flow approve` and `flow reject` answer. When nothing else can run, the process ends with exit code 5 and the run is `waiting`.", Example: "\"Deploy ${{ inputs.version }}?\""},
		{In: inStep, Name: "workflow", Type: typePath, Kind: true, Doc: "Calls another workflow file, beneath the folder of the file that is run; its path is relative to the file that names it. Its steps run in the same sandbox and workspace, with names of their own; its outputs are the step's.", Example: "lib/release.yaml"},
		{In: inStep, Name: "with", Type: typeWith, Doc: "Of `workflow`: values for the inputs of the called file.", Example: "{version: \"${{ inputs.version }}\"}"},
		{In: inStep, Name: "shell", Type: typeEnum, Enum: []string{"bash", "sh", "python", "node"}, Default: "bash", Doc: "What reads a script: `bash` (with `-eu -o pipefail`), `sh` (with `-eu`), `python` (`python3`) or `node`.", Example: "sh"},
		{In: inStep, Name: "warn_after", Type: typeDuration, Default: "60s", Doc: "An attempt that still runs after this time is told of, once.", Example: "5m"},
		{In: inStep, Name: "needs", Type: typeNeeds, Of: inNeeds, Doc: "The steps that have to end before this one starts. Absent: every step above it in the same list. `[]`: none. A map: some of them are enough.", Example: "[build]"},
		{In: inStep, Name: "if", Type: typeExpr, Default: "success()", Doc: "Runs the step only when the expression is true.", Example: "inputs.mode == \"full\""},
		{In: inStep, Name: "env", Type: typeEnv, Doc: "Settings for this step.", Example: "{WHO: \"${{ inputs.who }}\"}"},
		{In: inStep, Name: "secrets", Type: typeStepSecrets, Of: inStepSecret, Doc: "The declared secrets that this step gets as variables. An agent gets only those with `inject`, unless it says `expose`.", Example: "[API_TOKEN]"},
		{In: inStep, Name: "access", Type: typeAccess, Enum: []string{"write", "read"}, Default: "write", Doc: "What a `run` step may change of the workspace and the home: everything, nothing (`read`), or only the listed paths (`out/` is a folder, made when missing; `~/x` lies in the home). Scratch folders stay writable.", Example: "[out/, report.xml]"},
		{In: inStep, Name: "network", Type: typeNetwork, Of: inNetwork, Enum: []string{"none", "full"}, Doc: "What this step can reach; default: `network` of the sandbox.", Example: "{allow: [registry.example.com]}"},
		{In: inStep, Name: "timeout", Type: typeDuration, Doc: "Time limit of each attempt; its whole process tree ends.", Example: "10m"},
		{In: inStep, Name: "retry", Type: typeObject, Of: inRetry, Doc: "How a failed attempt is repeated.", Example: "{max_attempts: 3}"},
		{In: inStep, Name: "allow_dangerous", Type: typeText, Doc: "Why a destructive command in `run` is meant; without it such a command is an error.", Example: "the disk is a scratch image"},
		{In: inStep, Name: "continue_on_error", Type: typeBool, Default: "false", Doc: "The run goes on when the step fails; its status stays `failed`.", Example: "true"},
		{In: inStep, Name: "outputs", Type: typeOutputs, Doc: "Values for later steps, computed when the step succeeded; may use `self`.", Example: "{word: \"${{ trim(self.stdout) }}\"}"},

		{In: inStep, Name: "cache", Type: typeCache, Of: inCache, Default: "false", Doc: "Skips the step, and restores its outputs and what it changed, when it succeeded before and nothing that it depends on is different: its definition, the values that it uses, the isolation, and the workspace's files (or what `key` names instead of them). A miss says why.", Example: "{key: [go.sum, \"src/**/*.go\"]}"},
		{In: inStep, Name: "background", Type: typeBool, Default: "false", Doc: "The step's process goes on until the run ends; the step counts as ended when `ready` holds, without `ready` as soon as it has started.", Example: "true"},
		{In: inStep, Name: "ready", Type: typeObject, Of: inReady, Doc: "When a background step counts as ended: one of `port`, `run` and `log`.", Example: "{port: 8080, timeout: 30s}"},
		{In: inStep, Name: "artifacts", Type: typeStrings, Doc: "Files of the workspace that are kept with the run when the step has ended, also when it failed.", Example: "[coverage/, \"!coverage/tmp/\"]"},
		{In: inStep, Name: "on_conflict", Type: typeEnum, Enum: []string{"fail", "ours", "theirs"}, Default: "fail", Doc: "When a step that ran at the same time changed the same path differently and ended first: `fail` the step, take `ours` (what is there already) or `theirs` (what this step made).", Example: "theirs"},
		{In: inStep, Name: "sandbox", Type: typeSandbox, Doc: "Another sandbox than the run's: `fresh` is one of its own, which starts with the workspace as it is and nothing else (an empty home, an empty /tmp) and is closed at the step's end; a name is one of `sandboxes`. What the step changes in the workspace is merged back.", Example: "fresh"},
		{In: inStep, Name: "cwd", Type: typeTemplate, Doc: "The folder to start in, relative to the workspace and in it. A group's is that of its steps.", Example: "server"},
		{In: inStep, Name: "foreach", Type: typeForeach, Doc: "Runs the step once for each item: a list, an expression of one, or a map of lists of which every combination is an item (`include` adds, `exclude` takes away). In the step, `item` and `index`. Seen from outside, `steps.ID.outputs.X` is a list in the order of the items, null where it failed.", Example: "[linux, darwin]"},
		{In: inStep, Name: "max_parallel", Type: typeInt, Min: 1, Max: 1000, Doc: "Of `foreach`: how many items at the same time; the run's `max_parallel` holds besides.", Example: "2"},
		{In: inStep, Name: "batch", Type: typeObject, Of: inBatch, Doc: "Of `foreach`: items in groups, with a pause between.", Example: "{size: 10, pause: 1s}"},
		{In: inStep, Name: "fail_fast", Type: typeBool, Default: "false", Doc: "Of `foreach`: the first item that fails stops the others.", Example: "true"},
		{In: inStep, Name: "repeat", Type: typeObject, Of: inRepeat, Doc: "Runs the step again and again until a condition holds; `iteration` counts from 1.", Example: "{until: self.exit_code == 0, max: 5}"},

		{In: inMount, Name: "host", Type: typePath, Required: true, Doc: "The folder or file of this machine: absolute, below your home (`~/`), or relative to the workflow file. It has to exist; links are followed.", Example: "~/models"},
		{In: inMount, Name: "to", Type: typeInside, Required: true, Doc: "Where it is inside: an absolute path that is none of the sandbox's own (`/usr`, `/etc`, `/home`, `/tmp`, …).", Example: "/data/models"},

		{In: inReady, Name: "port", Type: typeInt, Min: 1, Max: 65535, Doc: "A port of TCP that something in the sandbox listens on.", Example: "8080"},
		{In: inReady, Name: "run", Type: typeTemplate, Doc: "A script for the step's shell, with its env, tried until it ends with exit code 0.", Example: "curl -sf localhost:8080/health"},
		{In: inReady, Name: "log", Type: typeText, Doc: "A regular expression (RE2) that a line of the step's output matches.", Example: "listening on"},
		{In: inReady, Name: "timeout", Type: typeDuration, Default: "60s", Doc: "How long it may take; the step fails then.", Example: "30s"},

		{In: inBatch, Name: "size", Type: typeInt, Min: 1, Max: 10000, Default: "10", Doc: "How many items a batch has.", Example: "10"},
		{In: inBatch, Name: "pause", Type: typeDuration, Default: "1s", Doc: "The time between the end of a batch and the start of the next.", Example: "1s"},

		{In: inRepeat, Name: "until", Type: typeExpr, Required: true, Doc: "The condition that ends it. It sees the steps of the group, or the step itself as `self`, as the last round left them.", Example: "self.exit_code == 0"},
		{In: inRepeat, Name: "max", Type: typeInt, Min: 1, Max: 1000, Default: "5", Doc: "How many rounds at most; a last round that leaves `until` false fails the step.", Example: "5"},

		{In: inNeeds, Name: "any", Type: typeIDs, Doc: "One of these steps has to succeed.", Example: "[mirror_a, mirror_b]"},
		{In: inNeeds, Name: "count", Type: typeInt, Min: 1, Max: 10000, Doc: "How many of the steps of `of` have to succeed.", Example: "2"},
		{In: inNeeds, Name: "of", Type: typeIDs, Doc: "The steps that `count` counts.", Example: "[review_a, review_b, review_c]"},
		{In: inNeeds, Name: "cancel_rest", Type: typeBool, Default: "false", Doc: "When enough of them succeeded, the others are cancelled, and what only they need; the step starts once they have ended. Without it they go on.", Example: "true"},

		{In: inCache, Name: "key", Type: typeStrings, Doc: "What replaces the workspace's files in the key: globs in the workspace, and values in `${{ }}`.", Example: "[go.sum, \"${{ inputs.mode }}\"]"},

		{In: inStepSecret, Name: "name", Type: typeName, Required: true, Doc: "The secret.", Example: "API_TOKEN"},
		{In: inStepSecret, Name: "expose", Type: typeBool, Default: "false", Doc: "An agent gets the value itself, and can say it to anybody.", Example: "true"},

		{In: inRetry, Name: "max_attempts", Type: typeInt, Min: 1, Max: 100, Default: "3", Doc: "All attempts, the first included.", Example: "3"},
		{In: inRetry, Name: "backoff", Type: typeEnum, Enum: []string{"constant", "exponential", "fibonacci"}, Default: "exponential", Doc: "How the pause grows.", Example: "constant"},
		{In: inRetry, Name: "initial", Type: typeDuration, Default: "2s", Doc: "The first pause.", Example: "1s"},
		{In: inRetry, Name: "max", Type: typeDuration, Default: "10s", Doc: "The longest pause.", Example: "1m"},
		{In: inRetry, Name: "jitter", Type: typeDuration, Doc: "At most this much is added to or taken from each pause, at random.", Example: "500ms"},
		{In: inRetry, Name: "max_elapsed", Type: typeDuration, Doc: "No new attempt after this time since the first one started.", Example: "10m"},
		{In: inRetry, Name: "on", Type: typeEnums, Enum: []string{"exit_code", "timeout", "infrastructure", "rate_limit"}, Doc: "The failures that are tried again; default: all four.", Example: "[timeout]"},

		{In: inRetry, Name: "workspace", Type: typeEnum, Enum: []string{"keep", "restore"}, Default: "keep", Doc: "What the next attempt starts with: the workspace and the home as the failed one left them, or as they were before it (what it changed is then in no checkpoint).", Example: "restore"},

		{In: inAgent, Name: "prompt", Type: typeTemplate, Doc: "What the agent is asked to do; at most 10,000 characters.", Example: "Fix the failing test"},
		{In: inAgent, Name: "prompt_file", Type: typePath, Doc: "A file with the prompt, relative to the workflow file; `${{ }}` works in it.", Example: "prompts/implement.md"},
		{In: inAgent, Name: "provider", Type: typeEnum, Enum: []string{"anthropic", "claude-code", "acp", "replay"}, Later: []string{"openai"}, Default: "anthropic", Doc: "Who holds the conversation: the Messages API, Claude Code's CLI, a program that speaks the Agent Client Protocol, or a cassette that is played.", Example: "replay"},
		{In: inAgent, Name: "command", Type: typeWords, Doc: "The program of provider `acp` and its arguments; it has to exist in the sandbox.", Example: "[my-agent, --acp]"},
		{In: inAgent, Name: "cassette", Type: typePath, Doc: "The folder that provider `replay` plays, relative to the workflow file.", Example: "cassettes/init"},
		{In: inAgent, Name: "profile", Type: typeProfile, Default: "default", Doc: "One of `profiles`, or a preset of `allowed_tools`: `code_analysis` (Read, Glob, Grep), `code_generation` (Bash, Write, Read, Edit, Glob, Grep), `data_processing` and `default` (Bash, Read, Write).", Example: "code_analysis"},
		{In: inAgent, Name: "model", Type: typeText, Doc: "The model's name; default: the provider's.", Example: "claude-sonnet-4-5"},
		{In: inAgent, Name: "system_prompt", Type: typeTemplate, Doc: "Replaces the built-in system prompt.", Example: "You are a careful reviewer."},
		{In: inAgent, Name: "append_system_prompt", Type: typeTemplate, Doc: "Is added to the system prompt.", Example: "Answer in English."},
		{In: inAgent, Name: "allowed_tools", Type: typeTools, Doc: "The only tools offered and executed: names, or names with a pattern.", Example: "[Read, \"Bash(go test:*)\"]"},
		{In: inAgent, Name: "disallowed_tools", Type: typeTools, Doc: "Tools taken away from the allowed ones.", Example: "[\"Bash(rm:*)\"]"},
		{In: inAgent, Name: "max_turns", Type: typeInt, Min: 1, Max: 10000, Default: "50", Doc: "How many answers of the model the conversation may have.", Example: "20"},
		{In: inAgent, Name: "budget", Type: typeObject, Of: inBudget, Doc: "What the step may spend, over all its attempts.", Example: "{cost_usd: 2, tokens: 500000}"},
		{In: inAgent, Name: "on_denied", Type: typeEnum, Enum: []string{"tell", "fail"}, Default: "tell", Doc: "A refused tool call is told to the agent, or fails the step (exit code 7).", Example: "fail"},
		{In: inAgent, Name: "output_schema", Type: typeSchema, Doc: "A JSON Schema of type object. The agent has to end with a value that it accepts; its properties are the step's outputs.", Example: "{type: object, required: [summary], properties: {summary: {type: string}}}"},
		{In: inAgent, Name: "session", Type: typeSession, Default: "new", Doc: "`continue STEP` goes on with the conversation of an earlier agent step of the same provider: the model sees all of it, and then this prompt.", Example: "continue plan"},
		{In: inAgent, Name: "mcp_servers", Type: typeServers, Of: inMCP, Doc: "Servers of the Model Context Protocol whose tools, named `mcp__SERVER__TOOL`, may be allowed. Each attempt starts its own.", Example: "{db: {command: [db-mcp, --read-only]}}"},
		{In: inAgent, Name: "context_files", Type: typeFiles, Doc: "Files of the workspace whose text is added to the system prompt when the conversation begins; none by default.", Example: "[AGENTS.md]"},
		{In: inAgent, Name: "max_prompt_chars", Type: typeInt, Min: 100, Max: 1000000, Default: "10000", Doc: "How long the prompt may be, in characters.", Example: "50000"},

		{In: inMCP, Name: "command", Type: typeWords, Doc: "The server's program and its arguments. It runs in the sandbox, in the workspace, with the step's rights, network, `env` and secrets, and speaks over its standard input and output.", Example: "[db-mcp, --read-only]"},
		{In: inMCP, Name: "env", Type: typeEnv, Doc: "Settings of the program, beside the step's.", Example: "{DB: \"${{ inputs.db }}\"}"},
		{In: inMCP, Name: "url", Type: typeText, Doc: "The address of a server that speaks streamable HTTP. The step's `network` has to allow its host; a secret with `inject` for it is added to the requests.", Example: "https://mcp.example.com/mcp"},
		{In: inMCP, Name: "headers", Type: typeHeaders, Doc: "Headers of the requests to `url`.", Example: "{X-Team: core}"},

		{In: inApprove, Name: "message", Type: typeTemplate, Required: true, Doc: "What the person is asked; one who answers sees it in `flow run`, `flow show` and `flow approve`.", Example: "\"Deploy ${{ inputs.version }}?\""},
		{In: inApprove, Name: "choices", Type: typeChoices, Default: "[approve, reject]", Doc: "The answers, taken with `flow approve --choice`. Each but `reject` lets the step succeed. `reject`, which `flow reject` gives, is always there and fails it.", Example: "[ship, hold]"},
		{In: inApprove, Name: "timeout", Type: typeDuration, Doc: "How long the answer may take, from the question on, also while no process runs; after it the step is `timed_out`.", Example: "72h"},

		{In: inBudget, Name: "cost_usd", Type: typeNumber, Max: 1000000, Doc: "US dollars, counted from the answers with the table of prices. Once they are spent the next request is refused, so that it is passed by one answer at most for each request in flight.", Example: "2.5"},
		{In: inBudget, Name: "tokens", Type: typeInt, Min: 1, Max: 1000000000000, Doc: "All that a model takes and gives: input, what its cache reads and writes, output.", Example: "500000"},
		{In: inBudget, Name: "turns", Type: typeInt, Min: 1, Max: 1000000000, Doc: "Answers of the model. In a step it counts all attempts, where `max_turns` bounds one conversation.", Example: "200"},
	}
}

// laterKeys are the keys of the language that do not work yet.
func laterKeys() []Key {
	var rows []Key
	for _, l := range []struct {
		in    string
		names []string
	}{
		{inWorkflow, []string{"template", "caches", "notify"}},
		{inSandbox, []string{"template", "caches"}},
		{inMount, []string{"write"}},
	} {
		for _, n := range l.names {
			rows = append(rows, Key{In: l.in, Name: n})
		}
	}
	return rows
}

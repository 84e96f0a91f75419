package steps

import (
	"context"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/egress"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Checkpoints keeps what Checkpoint took. Implemented by package state.
type Checkpoints interface {
	checkpoint.Store
	// StageCheckpoint makes the snapshot's contents durable and keeps its rows
	// until the Append whose event names the returned id.
	StageCheckpoint(ctx context.Context, runID string, snap checkpoint.Snapshot, parent string) (id string, err error)
	// Manifest returns a stored tree.
	Manifest(ctx context.Context, id string) (*checkpoint.Manifest, error)
}

// Stream of a process's output.
type Stream int

// The two streams.
const (
	Stdout Stream = iota + 1
	Stderr
)

// LogWriter takes the redacted output of one attempt. Write may be called from
// two goroutines, one for each stream.
type LogWriter interface {
	Write(s Stream, p []byte) error
	// Finish makes the log durable and returns the name by which events know it,
	// "" when nothing was written.
	Finish() (ref string, err error)
}

// Logs opens and reads the outputs of attempts. Implemented by package state.
type Logs interface {
	OpenLog(runID, step string, attempt int) (LogWriter, error)
	// Tail returns the last max bytes of one stream.
	Tail(ctx context.Context, ref string, s Stream, max int) ([]byte, error)
}

// OutputFunc shows live output; p is redacted and only valid during the call.
type OutputFunc func(step string, s Stream, p []byte)

// Config is what a Host needs. All fields but Output and Restore are required.
type Config struct {
	RunID    string
	Workflow *workflow.Workflow
	// Driver that makes the sandbox, chosen by Choose, and what it can do here.
	Driver       sandbox.Driver
	Capabilities sandbox.Capabilities
	// Dir is the run's own directory (0700) for sandboxes.
	Dir string
	// Source is the absolute path of workspace.from, "" for an empty workspace.
	Source string
	// FileDir is the absolute folder of the workflow file: cassettes are
	// relative to it.
	FileDir     string
	Checkpoints Checkpoints
	Logs        Logs
	Redact      *redact.Set
	// Secrets by name, for the steps that name them.
	Secrets   map[string]string
	Providers map[string]agent.Provider
	// Mounts that the run's sandbox shows, e.g. an agent's own program.
	Mounts []sandbox.Mount
	// Named are the places of the file's `sandboxes`, by name.
	Named map[string]Place
	// Record is the folder that agents' conversations are recorded into, "" for none.
	Record string
	// Spent is what the agents of a resumed run spent in its earlier attempts, by step.
	Spent map[string]agent.Spending
	// Restore is the checkpoint that a resumed run continues from; Base the one
	// that holds the imported source. "" for none.
	Restore, Base string
	// BelowFrom is the number of names from which Source is not copied, where the driver
	// can do without (Capabilities.Overlay); 0: 1,000.
	BelowFrom int
	// Cache of results, for the steps with `cache`.
	Cache  Cache
	Output OutputFunc
	// Reach and Roots are how the egress proxy gets to the network; the zero values
	// are right for flow, tests give their own.
	Reach egress.Reach
	Roots *x509.CertPool
}

// Host implements engine.Runner for one run.
type Host struct {
	cfg   Config
	rooms map[string]*room // kinds of sandbox, by name; "" is the run's
	house *house

	// making is held while the run's own sandbox is made, or the source is brought
	// in, so that parallel first steps wait for one. It is taken before mu.
	making sync.Mutex
	number atomic.Int64 // of sandboxes made, for their ids
	bank   *bank

	endedMu   sync.Mutex
	below     beneath                // what is known of the source where it is not copied
	endedOnes []engine.SandboxClosed // not told of yet

	looks looks // of sandboxes whose source comes in later

	// mu guards what follows.
	mu sync.Mutex
	// bringing is the source coming in, nil once it is in.
	bringing *bringing
	own      *member // the run's own sandbox, nil while there is none
	guests   int     // attempts in it
	dirty    bool    // something ran in it since its last checkpoint
	// ahead is its tree where that is newer than last: `finally` is not checkpointed.
	ahead *checkpoint.Manifest
	last  string // newest checkpoint of the run's line
	// proxy is made when a step with a list of hosts needs it; doors are the addresses
	// at which it listens, by sandbox.
	proxy *egress.Proxy
	doors map[string]net.Addr

	tenantsMu sync.Mutex
	tenants   map[string]tenants // by sandbox
	base      string             // checkpoint of the imported source
	// covered is the checkpoint from which a step's changed files are counted: the
	// last one that was not taken at the end of a turn.
	covered string
	forks   map[string]*fork          // of steps that overlap, by step
	stale   bool                      // forks were merged that the own sandbox has not
	writers map[string]string         // path → the step that changed it, while there are forks
	drops   sync.WaitGroup            // sandboxes that are being closed
	pending map[string]*pendingResult // steps with `cache` that missed
	spoiled map[string]bool           // those whose attempt failed
	busy    int                       // attempts in any sandbox

	procsMu  sync.Mutex
	procs    map[string]*process // living ones of background steps
	watching sync.WaitGroup

	// checked is held for writing while an attempt runs whose changes are checked
	// afterwards, so that they are its own.
	checked sync.RWMutex
}

// NewHost returns a Host that has made nothing yet.
func NewHost(cfg Config) *Host {
	if cfg.Output == nil {
		cfg.Output = func(string, Stream, []byte) {}
	}
	return &Host{cfg: cfg, rooms: newRooms(&cfg), house: newHouse(mostSandboxes(cfg.Workflow)), last: cfg.Restore, base: cfg.Base, covered: cfg.Restore, bank: newBank(cfg.Workflow.Budget, cfg.Spent)}
}

var _ engine.Runner = (*Host)(nil)

// kinds is the table of step kinds.
var kinds = map[workflow.Kind]func(*Host, context.Context, sandbox.Sandbox, engine.Attempt, *capture, func(engine.Body)) engine.Outcome{
	workflow.KindRun:   (*Host).runScript,
	workflow.KindAgent: (*Host).runAgent,
}

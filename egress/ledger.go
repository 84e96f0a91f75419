package egress

import "sync"

// Verdict on a destination.
type Verdict string

// The verdicts.
const (
	Allowed Verdict = "allowed"
	Refused Verdict = "refused"
	// Placeholder: a request that carried the placeholder of a credential to a host
	// to which the credential is not bound. It went there as it was.
	Placeholder Verdict = "placeholder"
)

// Entry counts the decisions of one kind on one destination.
type Entry struct {
	// Host is in normal form; quoted and cut where it is not a host name; "*" for
	// all destinations beyond the ledger's bound.
	Host    string
	Port    int // 0 for a name that was only looked up
	Verdict Verdict
	Reason  string // of a refusal, and the credential's name of a placeholder
	// Count of connections, or of requests where they can be read.
	Count int64
	// Sent and Received are bytes of what was tunnelled, or of bodies.
	Sent, Received int64
}

type entryKey struct {
	host    string
	port    int
	verdict Verdict
	reason  string
}

// maxEntries bounds a ledger; what comes beyond is counted together.
const maxEntries = 100

// ledger counts for one Client. report is called for the first of each kind, never
// under the lock.
type ledger struct {
	report func(Entry)

	mu      sync.Mutex
	entries map[entryKey]*Entry
	order   []*Entry
}

func (l *ledger) add(e Entry) {
	l.mu.Lock()
	found := l.find(e)
	first := found.Count == 0
	found.Count += e.Count
	found.Sent += e.Sent
	found.Received += e.Received
	copied := *found
	l.mu.Unlock()
	if first && e.Count > 0 && l.report != nil {
		l.report(copied)
	}
}

func (l *ledger) find(e Entry) *Entry {
	if l.entries == nil {
		l.entries = map[entryKey]*Entry{}
	}
	key := entryKey{e.Host, e.Port, e.Verdict, e.Reason}
	found := l.entries[key]
	if found == nil && len(l.order) >= maxEntries {
		key = entryKey{"*", 0, e.Verdict, ""}
		found = l.entries[key]
	}
	if found == nil {
		found = &Entry{Host: key.host, Port: key.port, Verdict: key.verdict, Reason: key.reason}
		l.entries[key] = found
		l.order = append(l.order, found)
	}
	return found
}

// all returns the entries in the order of their first decision.
func (l *ledger) all() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Entry, 0, len(l.order))
	for _, e := range l.order {
		if e.Count > 0 { // bytes alone are no decision
			out = append(out, *e)
		}
	}
	return out
}

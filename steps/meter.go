package steps

import (
	"context"
	"fmt"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// How often a running attempt is measured: a short one is not. Measuring the disk takes
// a walk over the home, so it waits in proportion to what the walk took.
const (
	meterEvery  = 250 * time.Millisecond
	diskEvery   = time.Second
	diskPatient = 20
)

// errDisk ends an attempt that wrote more than it may.
type errDisk struct{ used, most int64 }

func (e *errDisk) Error() string {
	return fmt.Sprintf("the workspace and the home take %s, more than sandbox.limits.disk (%s)", size(e.used), size(e.most))
}

// meter measures one attempt until stop.
type meter struct {
	sb     sandbox.Meter
	limits sandbox.Limits
	cancel context.CancelCauseFunc
	done   chan struct{}
	end    chan struct{}
	usage  engine.Usage
}

// measure starts a meter; the context ends when the attempt goes beyond its disk.
func (h *Host) measure(ctx context.Context, r *room, sb sandbox.Sandbox) (context.Context, *meter) {
	ctx, cancel := context.WithCancelCause(ctx)
	m := &meter{limits: limits(r.spec.Limits), cancel: cancel, done: make(chan struct{}), end: make(chan struct{})}
	var ok bool
	if m.sb, ok = sb.(sandbox.Meter); !ok {
		close(m.done)
		return ctx, m
	}
	go m.run(ctx)
	return ctx, m
}

func (m *meter) run(ctx context.Context) {
	defer close(m.done)
	tick := time.NewTicker(meterEvery)
	defer tick.Stop()
	nextDisk := time.Now().Add(diskEvery)
	if m.limits.Disk > 0 {
		nextDisk = time.Now()
	}
	for {
		select {
		case <-m.end:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		disk := !began.Before(nextDisk)
		st, err := m.sb.Stats(ctx, disk)
		if err != nil {
			continue // the attempt says what is wrong with its place
		}
		m.usage.PeakMemory = max(m.usage.PeakMemory, st.Memory)
		m.usage.PeakProcesses = max(m.usage.PeakProcesses, st.Processes)
		m.usage.PeakDisk = max(m.usage.PeakDisk, st.Disk)
		if disk {
			nextDisk = time.Now().Add(diskPatient * time.Since(began))
		}
		if m.limits.Disk > 0 && st.Disk > m.limits.Disk {
			m.cancel(&errDisk{st.Disk, m.limits.Disk})
			return
		}
	}
}

// stop ends the meter and returns what it saw.
func (m *meter) stop() engine.Usage {
	close(m.end)
	<-m.done
	m.cancel(nil)
	return m.usage
}

// hitText explains a limit to people, "" for none.
func (m *meter) hitText(hit string) string {
	switch hit {
	case "memory":
		return "out of memory: sandbox.limits.memory is " + size(m.limits.Memory)
	case "pids":
		return fmt.Sprintf("no more processes: the sandbox may have %d (sandbox.limits.pids)", m.pids())
	case "file_size":
		return "a file grew beyond sandbox.limits.file_size, which is " + size(m.limits.FileSize)
	case "tmp":
		return "a scratch folder (/tmp, /var/tmp, /dev/shm) is full; sandbox.limits.tmp sets its size"
	case "host_disk":
		return "the disk of this machine is full: make space, then resume the run"
	}
	return ""
}

// defaultPids is the drivers' bound where the file names none.
const defaultPids = 4096

func (m *meter) pids() int {
	if m.limits.Pids > 0 {
		return m.limits.Pids
	}
	return defaultPids
}

// nearPids is how near to the bound a sample has to come for a failure to be put down to it.
const nearPids = 8

// hit is the limit that a failed command ran into.
func (m *meter) hit(res sandbox.Result, u engine.Usage) string {
	if res.Hit == "" && res.ExitCode != 0 && max(u.PeakProcesses, res.Leftover) >= m.pids()-nearPids {
		return "pids"
	}
	return res.Hit
}

// size in the units of the language.
func size(n int64) string {
	units := [...]string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.4g %s", v, units[i])
}

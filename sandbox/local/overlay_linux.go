package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
)

// The workspace as an overlay: Spec.Lower shows below, changes go to Spec.Dir/layer/
// upper. The mount is made detached and handed to init, which puts it at its place; the
// host keeps a descriptor of it, by which it sees what a command sees. So nothing is
// mounted anywhere on the host, and nothing stays when flow is killed.
//
// Root makes it here, over an idmapped mount in which the files of the source's owner
// are the commands' user's. The upper tree is not idmapped (the kernel could not make
// its work directory then) and has the ids of the host. An ordinary user's is made by
// stage 1, in whose namespace that is allowed (Linux 5.11); its marks are user.*
// attributes, and directories of the source cannot be renamed (EXDEV), as in every
// overlay of a user namespace.

// view is the mounted workspace as the host sees it.
type view struct {
	mount *os.File
	upper string
	// prefix of the marks in upper.
	prefix string
}

func (v *view) path() string { return fmt.Sprintf("/proc/self/fd/%d", v.mount.Fd()) }

// close lets go of the mount, which ends when init's has ended too.
func (v *view) close() {
	if v != nil {
		v.mount.Close()
	}
}

// hasOverlay reports whether the kernel has it, or would load it.
func hasOverlay() bool {
	b, err := os.ReadFile("/proc/filesystems")
	return err == nil && strings.Contains(string(b), "\toverlay\n")
}

// layer makes the overlay of a sandbox.
func (d *Driver) layer(ctx context.Context, s *Sandbox, spec sandbox.Spec) error {
	if !s.ids.root {
		return noOverlay(nil, "make the overlay as an ordinary user: not supported yet")
	}
	layer, err := s.makeLayer(ctx, spec)
	if err != nil {
		return err
	}
	s.view, err = d.overlayRoot(s, spec, layer)
	return err
}

const (
	layerName = "layer"
	upperName = "upper"
	workName  = "work"
	// emptyStage is a process that lives only for its user namespace.
	argEmpty = "__flow-sandbox-empty"
)

// Prefixes of the marks.
const (
	marksRoot = "trusted.overlay."
	marksUser = "user.overlay."
)

// noOverlay is the error of Create that says so.
func noOverlay(err error, format string, args ...any) error {
	return step(errors.Join(sandbox.ErrNoOverlay, err), format, args...)
}

// makeLayer prepares the directories of an overlay.
func (s *Sandbox) makeLayer(ctx context.Context, spec sandbox.Spec) (layer string, err error) {
	layer = filepath.Join(spec.Dir, layerName)
	// What an earlier sandbox left is over what the source was then.
	if err := os.RemoveAll(layer); err != nil {
		return "", step(err, "clear the layer")
	}
	for _, dir := range [...]string{layer, filepath.Join(layer, upperName), filepath.Join(layer, workName)} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", step(err, "make the layer")
		}
	}
	upper := filepath.Join(layer, upperName)
	if err := os.Chmod(upper, 0o755); err != nil {
		return "", step(err, "make the layer")
	}
	if s.ids.root {
		s.owner = &checkpoint.Owner{UID: s.ids.base + UserID, GID: s.ids.base + UserID}
		if err := os.Lchown(upper, s.owner.UID, s.owner.GID); err != nil {
			return "", step(err, "make the layer")
		}
	}
	if err := spec.Lower.Fill(ctx, upper, s.owner); err != nil {
		return "", step(err, "prepare the workspace")
	}
	return layer, nil
}

// overlayRoot mounts it with root's rights.
func (d *Driver) overlayRoot(s *Sandbox, spec sandbox.Spec, layer string) (*view, error) {
	lower, err := unix.OpenTree(unix.AT_FDCWD, spec.Lower.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, noOverlay(err, "open_tree %s", spec.Lower.Dir)
	}
	defer unix.Close(lower)
	ns, err := d.maps.get(spec.Lower.UID, spec.Lower.GID, s.ids.base+UserID)
	if err != nil {
		return nil, noOverlay(err, "make a map of ids")
	}
	if err := unix.MountSetattr(lower, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(ns.Fd())}); err != nil {
		return nil, noOverlay(err, "map the ids of %s", spec.Lower.Dir)
	}
	fd, err := mountOverlay(fdPath(lower), layer, "redirect_dir=on")
	if err != nil {
		return nil, err
	}
	return &view{mount: os.NewFile(uintptr(fd), "workspace"), upper: filepath.Join(layer, upperName), prefix: marksRoot}, nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// mountOverlay makes a detached mount of lower with the layer over it.
func mountOverlay(lower, layer, option string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, noOverlay(err, "open the file system overlay")
	}
	defer unix.Close(fs)
	// By descriptor: commands read the options in /proc/mounts.
	dir, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, step(err, "open %s", layer)
	}
	defer unix.Close(dir)
	name, value, _ := strings.Cut(option, "=")
	options := [][2]string{{"upperdir", fdPath(dir) + "/" + upperName}, {"workdir", fdPath(dir) + "/" + workName},
		{"metacopy", "off"}, {"index", "off"}, {name, value}}
	// lowerdir+ (Linux 6.8) takes a path with colons as it is.
	if err := unix.FsconfigSetString(fs, "lowerdir+", lower); err != nil {
		if strings.ContainsAny(lower, `:\,`) {
			return -1, noOverlay(err, "show %q below an overlay", lower)
		}
		options = append(options, [2]string{"lowerdir", lower})
	}
	for _, o := range options {
		if o[0] == "" {
			continue
		}
		var err error
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fs, o[0])
		} else {
			err = unix.FsconfigSetString(fs, o[0], o[1])
		}
		if err != nil {
			return -1, noOverlay(errors.Join(err, saidBy(fs)), "set %s of the overlay", o[0])
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, noOverlay(errors.Join(err, saidBy(fs)), "make the overlay")
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrsShown)
	if err != nil {
		return -1, noOverlay(err, "mount the overlay")
	}
	// It falls back to read-only by itself where the file system cannot hold its marks.
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Flags&unix.ST_RDONLY != 0 {
		unix.Close(fd)
		return -1, noOverlay(err, "write to the overlay: the file system of %s cannot be its upper layer", layer)
	}
	return fd, nil
}

// saidBy is what the kernel has to say about a mount that it refused.
func saidBy(fs int) error {
	var words []string
	buf := make([]byte, 512)
	for len(words) < 5 {
		n, err := unix.Read(fs, buf)
		if n <= 0 || err != nil {
			break
		}
		words = append(words, strings.TrimSpace(strings.TrimPrefix(string(buf[:n]), "e ")))
	}
	if len(words) == 0 {
		return nil
	}
	return errors.New(strings.Join(words, "; "))
}

// idMaps are user namespaces that map one id, for the idmapped mounts of sources. They
// are kept: a run makes many sandboxes over one source.
type idMaps struct {
	mu sync.Mutex
	by map[[3]int]*os.File
}

func (m *idMaps) get(uid, gid, to int) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [3]int{uid, gid, to}
	if f := m.by[key]; f != nil {
		return f, nil
	}
	f, err := newIDMap(uid, gid, to)
	if err != nil {
		return nil, err
	}
	if m.by == nil {
		m.by = map[[3]int]*os.File{}
	}
	m.by[key] = f
	return f, nil
}

func newIDMap(uid, gid, to int) (*os.File, error) {
	r, w, err := os.Pipe() // it lives until its end is closed
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"flow-sandbox", argEmpty}, &syscall.ProcAttr{
		Dir: "/", Env: initEnv(), Files: []uintptr{r.Fd()},
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: to, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: to, Size: 1}}},
	})
	if err != nil {
		return nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	_ = unix.Kill(pid, unix.SIGKILL) // ours, and not reaped yet
	for {
		if _, werr := unix.Wait4(pid, nil, 0, nil); !errors.Is(werr, unix.EINTR) {
			return f, err
		}
	}
}

// Layered implements sandbox.Layered.
func (s *Sandbox) Layered() bool { return s.layer != nil }

// Workspace implements sandbox.Layered.
func (s *Sandbox) Workspace() string {
	if s.view == nil {
		return filepath.Join(s.home, filepath.Base(sandbox.WorkspaceDir))
	}
	return s.view.path()
}

// Begin implements sandbox.Layered.
func (s *Sandbox) Begin(ctx context.Context, st checkpoint.Store) (checkpoint.Batch, error) {
	if s.layer == nil {
		return nil, errors.ErrUnsupported
	}
	return s.layer.Begin(ctx, st)
}

// First implements sandbox.Layered.
func (s *Sandbox) First() (checkpoint.Snapshot, error) {
	if s.layer == nil {
		return checkpoint.Snapshot{}, errors.ErrUnsupported
	}
	return s.layer.First()
}

// SetLower implements sandbox.Layered.
func (s *Sandbox) SetLower(m *checkpoint.Manifest) {
	if s.layer != nil {
		s.layer.SetLower(m)
	}
}

var _ sandbox.Layered = (*Sandbox)(nil)

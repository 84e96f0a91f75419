package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ImportOptions say what of a source tree comes in.
type ImportOptions struct {
	// Exclude is a list of gitignore-like patterns (see Matcher), beside what is
	// always left out: .flow/, .env and .env.* but for .example, .sample, .template.
	Exclude []string
	// Owner of the copies, where the process may chown. Nil: the process.
	Owner *Owner
	// Workers as in Options.
	Workers int
}

// ImportReport is what Import did.
type ImportReport struct {
	Files, Dirs, Symlinks int
	Bytes                 int64
	// Cloned files share their blocks with the source (FICLONE).
	Cloned int
	// Skipped are sockets, fifos and devices: not copied.
	Skipped []string
	// Cleaned are git configurations of which credentials were taken out.
	Cleaned []string
}

// Import copies the tree src into the directory dst, which is made when it is not
// there and must be empty of what comes in. Modes, mtimes, hardlinks, symlinks (as
// they are) and user.* attributes are kept. Nothing of src is changed or followed
// out of it. A manifest of dst right after equals SourceManifest(src).
func Import(ctx context.Context, src, dst string, o ImportOptions) (ImportReport, error) {
	rep, err := importTree(ctx, src, dst, o)
	if err != nil {
		return rep, fmt.Errorf("import %s: %w", src, err)
	}
	return rep, nil
}

// importer is one Import at work.
type importer struct {
	o        ImportOptions
	src, dst int
	rep      ImportReport
	copied   atomic.Int64
	cloned   atomic.Int64
}

func importTree(ctx context.Context, src, dst string, o ImportOptions) (rep ImportReport, err error) {
	t, err := source(src, o)
	if err != nil {
		return rep, err
	}
	if err := apart(src, dst); err != nil {
		return rep, err
	}
	t.noHash = true
	m, err := t.list(ctx)
	if err != nil {
		return rep, err
	}
	im := &importer{o: o}
	made := unix.Mkdir(dst, 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return rep, fmt.Errorf("make directory %s: %w", dst, made)
	}
	if im.src, err = openRoot(src); err != nil {
		return rep, err
	}
	defer unix.Close(im.src)
	if im.dst, err = openRoot(dst); err != nil {
		return rep, err
	}
	defer unix.Close(im.dst)
	if made == nil {
		if err := im.chown(im.dst); err != nil {
			return rep, fmt.Errorf("own directory %s: %w", dst, err)
		}
	}
	if err := im.run(ctx, t, m); err != nil {
		return im.rep, err
	}
	im.rep.Bytes, im.rep.Cloned = im.copied.Load(), int(im.cloned.Load())
	return im.rep, nil
}

// apart refuses a destination inside the source: the copy would be a part of what
// is copied.
func apart(src, dst string) error {
	s, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	d, err := filepath.Abs(dst)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(d)); err == nil {
		d = filepath.Join(real, filepath.Base(d))
	}
	if s, err = filepath.Abs(s); err != nil {
		return err
	}
	rel, err := filepath.Rel(s, d)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil
	}
	for _, c := range strings.Split(rel, "/") {
		if c == ".flow" {
			return nil // the state directory is left out anyway
		}
	}
	return fmt.Errorf("the destination %s is inside it", dst)
}

func (im *importer) run(ctx context.Context, t *Tracker, m *Manifest) error {
	var dirs, files, links []*Entry
	for i := range m.Entries {
		e := &m.Entries[i]
		switch {
		case !copies(e.Kind):
			im.rep.Skipped = append(im.rep.Skipped, e.Path)
		case e.Kind == KindDir:
			dirs = append(dirs, e)
		case e.Kind == KindSymlink:
			im.rep.Symlinks++
			files = append(files, e)
		case e.HardlinkTo != "" && !isGitConfig(e.Path) && !isGitConfig(e.HardlinkTo):
			im.rep.Files++
			links = append(links, e)
		default:
			im.rep.Files++
			if isGitConfig(e.Path) {
				im.rep.Cleaned = append(im.rep.Cleaned, e.Path)
			}
			files = append(files, e)
		}
	}
	im.rep.Dirs = len(dirs)
	for _, e := range dirs {
		if err := im.mkdir(e); err != nil {
			return fmt.Errorf("make directory %q: %w", e.Path, err)
		}
	}
	err := t.parallel(ctx, nil, len(files), func(ctx context.Context, r *reader, i int) error {
		if err := im.file(ctx, r, files[i]); err != nil {
			return fmt.Errorf("copy %q: %w", files[i].Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range links {
		if err := im.link(e); err != nil {
			return fmt.Errorf("link %q to %q: %w", e.Path, e.HardlinkTo, err)
		}
	}
	for _, e := range slices.Backward(dirs) {
		if err := im.finishDir(e); err != nil {
			return fmt.Errorf("set mode and time of %q: %w", e.Path, err)
		}
	}
	return nil
}

// at opens the destination directory of a path.
func (im *importer) at(path string) (dir int, name string, err error) {
	d, name := split(path)
	dir, err = openBeneath(im.dst, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return dir, name, err
}

func (im *importer) mkdir(e *Entry) error {
	dir, name, err := im.at(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func (im *importer) chown(fd int) error {
	if im.o.Owner == nil || unix.Geteuid() != 0 {
		return nil
	}
	return unix.Fchownat(fd, "", im.o.Owner.UID, im.o.Owner.GID, unix.AT_EMPTY_PATH)
}

func (im *importer) finishDir(e *Entry) error {
	fd, err := openBeneath(im.dst, e.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	from, err := openBeneath(im.src, e.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	x, err := listXattrs(from, make([]byte, 1024))
	if err != nil {
		return err
	}
	return im.finish(fd, e.Mode, e.MtimeNS, x)
}

// finish sets owner, attributes, mode and time of a copy, in the order in which
// none undoes another.
func (im *importer) finish(fd int, mode uint32, mtime int64, xattrs map[string]string) error {
	if err := im.chown(fd); err != nil {
		return err
	}
	if err := setXattrs(fd, xattrs); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", timespecs(mtime), unix.AT_EMPTY_PATH)
}

func (im *importer) link(e *Entry) error {
	from, first, err := im.at(e.HardlinkTo)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	dir, name, err := im.at(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(from, first, dir, name, 0)
}

func (im *importer) file(ctx context.Context, r *reader, e *Entry) error {
	dir, name, err := im.at(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if e.Kind == KindSymlink {
		if err := unix.Symlinkat(e.Target, dir, name); err != nil {
			return err
		}
		if o := im.o.Owner; o != nil && unix.Geteuid() == 0 {
			if err := unix.Fchownat(dir, name, o.UID, o.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
		return setTime(dir, name, e.MtimeNS)
	}
	from, _, err := (&keys{root: im.src, never: true}).openFile(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	for try := 1; ; try++ {
		err := im.copyFile(ctx, r, from, dir, name, e)
		if err == nil || !errors.Is(err, errChanged) || try == readTries {
			return err
		}
		if _, err := unix.Seek(from, 0, io.SeekStart); err != nil {
			return err
		}
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return err
		}
	}
}

// copyFile copies one open file to a new name: shared blocks where the file system
// can, else in the kernel, else through memory.
func (im *importer) copyFile(ctx context.Context, r *reader, from, dir int, name string, e *Entry) error {
	before, err := statFd(from)
	if err != nil {
		return err
	}
	if before.kind() != KindFile {
		return fmt.Errorf("%w: it is no regular file now", errChanged)
	}
	to, err := openBeneath(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if isGitConfig(e.Path) {
		b, err := readSmall(im.src, e.Path)
		if err != nil {
			return err
		}
		if err := writeSparse(to, b, 0); err != nil {
			return err
		}
	} else if err := im.clone(ctx, r, from, to, before.size); err != nil {
		return err
	}
	x, err := listXattrs(from, r.xbuf[:])
	if err != nil {
		return err
	}
	after, err := statFd(from)
	if err != nil {
		return err
	}
	if after != before {
		return errChanged
	}
	im.copied.Add(before.size)
	return im.finish(to, after.mode&0o7777, after.mtime, x)
}

func (im *importer) clone(ctx context.Context, r *reader, from, to int, size int64) error {
	if size == 0 {
		return nil
	}
	if err := unix.IoctlFileClone(to, from); err == nil {
		im.cloned.Add(1)
		return nil
	}
	for done := int64(0); done < size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := unix.CopyFileRange(from, nil, to, nil, int(min(size-done, 64<<20)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil && done == 0 {
			return copyThrough(ctx, r, from, to)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break // shorter than it was: the caller compares stats
		}
		done += int64(n)
	}
	return nil
}

func copyThrough(ctx context.Context, r *reader, from, to int) error {
	buf := r.buffer(streamBuf)
	var off int64
	for {
		n, err := fdReader{ctx, from}.Read(buf)
		if err == io.EOF {
			return unix.Ftruncate(to, off)
		}
		if err != nil {
			return err
		}
		if err := writeSparse(to, buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
}

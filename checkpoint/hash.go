package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// smallFile is the largest content that is handled in memory as one piece;
	// larger ones are streamed, so that memory stays bounded.
	smallFile = 1 << 20
	// keepBytes bounds what a scan keeps in memory between hashing and storing.
	// What does not fit is read a second time.
	keepBytes = 32 << 20
	streamBuf = 256 << 10
	// readTries: a file that changes while it is read is tried this often.
	readTries = 3
)

// reader has the buffers of one goroutine that reads files.
type reader struct {
	keys  *keys
	small []byte
	xbuf  [1024]byte
}

// hash reads the new and changed regular files, each inode once.
func (s *scan) hash(ctx context.Context, o scanOptions) error {
	jobs := make([]*pend, 0, len(s.pends))
	var again []*pend // further names of an inode that is read already
	first := map[inode]*pend{}
	for _, p := range s.pends {
		if p.e.Kind != KindFile || p.assumed {
			continue
		}
		if p.st.nlink > 1 {
			id := inode{p.st.dev, p.st.ino}
			if first[id] != nil {
				again = append(again, p)
				continue
			}
			first[id] = p
		}
		jobs = append(jobs, p)
	}
	var kept atomic.Int64
	err := s.t.parallel(ctx, s.keys, len(jobs), func(ctx context.Context, r *reader, i int) error {
		p := jobs[i]
		wr, ok := o.written[p.e.Path]
		if ok && wr.st == p.st {
			// Restore computed the hash while it wrote, and set the attributes itself.
			return s.readAttributes(r, p, wr.hash, o.lenient)
		}
		keep := o.keep && p.st.size <= smallFile && kept.Add(p.st.size) <= keepBytes
		err := r.read(ctx, &s.walk, p, keep)
		if err != nil && o.lenient && !errors.Is(err, errChanged) && ctx.Err() == nil {
			p.e.Hash, p.racy = Hash{}, true // unlike any wanted content
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range again {
		f := first[inode{p.st.dev, p.st.ino}]
		path := p.e.Path
		p.e, p.st, p.racy = f.e, f.st, f.racy
		p.e.Path, p.e.HardlinkTo = path, ""
	}
	return nil
}

// readAttributes fills in a file of known content.
func (s *scan) readAttributes(r *reader, p *pend, h Hash, lenient bool) error {
	fd, done, err := s.keys.openFile(p.e.Path)
	if err != nil {
		return pathError("open", p.e.Path, err)
	}
	defer unix.Close(fd)
	p.e.Hash = h
	if p.e.Xattrs, err = listXattrs(fd, r.xbuf[:]); err != nil {
		err = pathError("read attributes of", p.e.Path, err)
	}
	return errors.Join(err, done())
}

// parallel runs n jobs on the Tracker's workers; few jobs run in the caller.
func (t *Tracker) parallel(ctx context.Context, k *keys, n int, job func(ctx context.Context, r *reader, i int) error) error {
	const few = 8
	if n <= few || t.workers == 1 {
		r := &reader{keys: k}
		for i := range n {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := job(ctx, r, i); err != nil {
				return err
			}
		}
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(t.workers, n/4) {
		g.Go(func() error {
			r := &reader{keys: k}
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := context.Cause(ctx); err != nil {
					return err
				}
				if err := job(ctx, r, i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// read hashes one regular file and reads its attributes. p's stat becomes that of
// the content which was read.
func (r *reader) read(ctx context.Context, w *walk, p *pend, keep bool) (err error) {
	fd, done, err := r.keys.openFile(p.e.Path)
	if err != nil {
		return pathError("open", p.e.Path, err)
	}
	changedMode := false
	defer func() {
		unix.Close(fd)
		if derr := done(); derr != nil {
			err = errors.Join(err, derr)
		}
	}()
	before, err := statFd(fd)
	if err != nil {
		return pathError("stat", p.e.Path, err)
	}
	if before.ino != p.st.ino || before.dev != p.st.dev || before.kind() != KindFile {
		return fmt.Errorf("read %q: %w: it is another file now", p.e.Path, errChanged)
	}
	changedMode = before.mode != p.st.mode // the owner's rights were given for a moment
	for try := 1; ; try++ {
		h, n, content, err := r.content(ctx, fd, before.size, keep)
		if err != nil {
			return pathError("read", p.e.Path, err)
		}
		x, err := listXattrs(fd, r.xbuf[:])
		if err != nil {
			return pathError("read attributes of", p.e.Path, err)
		}
		after, err := statFd(fd)
		if err != nil {
			return pathError("stat", p.e.Path, err)
		}
		if after == before && n == before.size {
			p.e.Hash, p.e.Xattrs, p.e.Size, p.e.MtimeNS, p.content = h, x, n, after.mtime, content
			if !changedMode {
				p.st, p.e.Mode = after, after.mode&0o7777
			}
			p.racy = changedMode || w.racy(&after)
			return nil
		}
		if try == readTries {
			return fmt.Errorf("read %q: %w, %d times", p.e.Path, errChanged, readTries)
		}
		before = after
		if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
			return pathError("read", p.e.Path, err)
		}
	}
}

// content hashes what an open file holds. A small one comes back in memory too,
// when keep says so.
func (r *reader) content(ctx context.Context, fd int, size int64, keep bool) (h Hash, n int64, content []byte, err error) {
	if size > smallFile {
		sum := sha256.New()
		n, err = io.CopyBuffer(sum, fdReader{ctx, fd}, r.buffer(streamBuf))
		sum.Sum(h[:0])
		return h, n, nil, err
	}
	// One byte more, to see that the file ends where its size says.
	var buf []byte
	if keep {
		buf = make([]byte, size+1)
	} else {
		buf = r.buffer(int(size) + 1)
	}
	got := 0
	for got < len(buf) {
		c, err := fdReader{ctx, fd}.Read(buf[got:])
		got += c
		if err == io.EOF {
			break
		}
		if err != nil {
			return h, 0, nil, err
		}
	}
	h = sha256.Sum256(buf[:got])
	if keep {
		content = buf[:got:got]
	}
	return h, int64(got), content, nil
}

func (r *reader) buffer(n int) []byte {
	if cap(r.small) < n {
		r.small = make([]byte, max(n, 64<<10))
	}
	return r.small[:n]
}

// fdReader reads a descriptor without an os.File, whose finalizer and poller cost
// more than a small file's content. A cancelled context ends it.
type fdReader struct {
	ctx context.Context
	fd  int
}

func (f fdReader) Read(b []byte) (int, error) {
	for {
		if err := context.Cause(f.ctx); err != nil {
			return 0, err
		}
		n, err := unix.Read(f.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 0 && len(b) > 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

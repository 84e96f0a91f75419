package local

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// bundles are where systems keep the certificates that they trust, in one file.
var bundles = [...]string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"}

// maxBundle bounds what is read of the host's; real ones have a quarter of it.
const maxBundle = 1 << 20

// addTrust makes commands trust the certificates of Spec.Trust: two files of their
// own, and the second one over the system's bundles. The host's files stay as they are.
func addTrust(trust []byte) error {
	if len(trust) == 0 {
		return nil
	}
	if err := makeDir(newRoot+path.Dir(sandbox.TrustFile), 0o755); err != nil {
		return err
	}
	if err := makeFile(newRoot+sandbox.TrustFile, trust); err != nil {
		return err
	}
	all, err := withSystem(trust)
	if err != nil {
		return err
	}
	if err := makeFile(newRoot+sandbox.TrustBundle, all); err != nil {
		return err
	}
	for _, name := range bundles {
		var st unix.Stat_t
		// A link leads to another one of the list, or out of the new root.
		if err := unix.Lstat(newRoot+name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if _, err := os.Stat(newRoot + name); err != nil {
			continue
		}
		if err := show(newRoot+sandbox.TrustBundle, newRoot+name, attrsRead, 0); err != nil {
			return err
		}
	}
	return nil
}

// withSystem is trust after the machine's own certificates.
func withSystem(trust []byte) ([]byte, error) {
	for _, name := range bundles {
		system, err := readLimited(name, maxBundle)
		if errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, step(err, "read %s", name)
		}
		if len(system) > 0 {
			return append(append(bytes.TrimRight(system, "\n"), '\n'), trust...), nil
		}
	}
	return append([]byte(nil), trust...), nil
}

// trustDir of the tier landlock, beside the home: commands may read it.
const trustDir = "trust"

// addFlatTrust writes the files of Spec.Trust where commands see the host's paths. There
// the system's bundle stays as it is: programs that look only there do not trust them.
func (s *Sandbox) addFlatTrust(trust []byte) error {
	if len(trust) == 0 {
		return nil
	}
	all, err := withSystem(trust)
	if err != nil {
		return err
	}
	alone, bundle := s.TrustFiles()
	if err := os.Mkdir(filepath.Dir(alone), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return step(err, "make the folder of certificates")
	}
	return step(errors.Join(os.WriteFile(alone, trust, 0o644), os.WriteFile(bundle, all, 0o644)), "write the certificates")
}

var _ sandbox.Truster = (*Sandbox)(nil)

// TrustFiles are where commands find the certificates of Spec.Trust.
func (s *Sandbox) TrustFiles() (alone, bundle string) {
	if !s.flat() {
		return sandbox.TrustFile, sandbox.TrustBundle
	}
	dir := filepath.Join(filepath.Dir(s.home), trustDir)
	return filepath.Join(dir, path.Base(sandbox.TrustFile)), filepath.Join(dir, path.Base(sandbox.TrustBundle))
}

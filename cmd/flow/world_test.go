package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/egress"
)

// worldEnv names a file that describes a world: names of hosts, and the servers on
// loopback that play them. Only the test binary knows it; the refusal of loopback
// in the product stays as it is, since the names have other addresses.
const worldEnv = "FLOW_TEST_WORLD"

type worldFile struct {
	Names  map[string]string `json:"names"`  // host → address
	Places map[string]string `json:"places"` // address:port → address:port on loopback
	Roots  string            `json:"roots"`  // PEM
}

func (w *worldFile) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	a, err := netip.ParseAddr(w.Names[strings.TrimSuffix(host, ".")])
	if err != nil {
		return nil, errors.New("no such host")
	}
	return []netip.Addr{a}, nil
}

func (w *worldFile) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	place, ok := w.Places[a.String()]
	if !ok {
		return nil, fmt.Errorf("connect to %v: connection refused", a)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", place)
}

// mainInWorld is main, in a world if the environment names one.
func mainInWorld() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, environ: os.Environ}
	if name := os.Getenv(worldEnv); name != "" {
		w := &worldFile{}
		b, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(b, w)
		}
		if err != nil {
			panic(err)
		}
		a.reach = egress.Reach{Resolver: w, Dial: w.dial}
		a.roots = x509.NewCertPool()
		a.roots.AppendCertsFromPEM([]byte(w.Roots))
	}
	os.Exit(a.main(os.Args[1:]))
}

// testWorld has the hosts good.test and evil.test (both answer on 80 and 443 with who
// they are and what they were sent), inside.test (at 127.0.0.1) and metadata.test
// (at 169.254.169.254).
type testWorld struct {
	worldFile
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	next int
	tb   testing.TB
}

func newTestWorld(tb testing.TB) *testWorld {
	w := &testWorld{worldFile: worldFile{Names: map[string]string{}, Places: map[string]string{}}, tb: tb}
	var err error
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		tb.Fatal(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the world"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &w.key.PublicKey, w.key)
	if err != nil {
		tb.Fatal(err)
	}
	if w.ca, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	w.Roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	for _, host := range []string{"good.test", "evil.test"} {
		h := func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(rw, "%s says %s %s auth=%q\n", host, r.Method, r.URL.Path, r.Header.Get("Authorization"))
		}
		w.serve(host, http.HandlerFunc(h))
	}
	w.Names["inside.test"], w.Names["metadata.test"] = "127.0.0.1", "169.254.169.254"
	return w
}

// serve plays a host on the ports 80 and 443.
func (w *testWorld) serve(host string, h http.Handler) {
	w.tb.Helper()
	w.next++
	addr := fmt.Sprintf("203.0.113.%d", w.next)
	w.Names[host] = addr
	plain := httptest.NewServer(h)
	w.tb.Cleanup(plain.Close)
	w.Places[addr+":80"] = plain.Listener.Addr().String()
	t := &x509.Certificate{SerialNumber: big.NewInt(int64(w.next) + 1), DNSNames: []string{host}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, w.ca, &w.key.PublicKey, w.key)
	if err != nil {
		w.tb.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: w.key}}}
	s.StartTLS()
	w.tb.Cleanup(s.Close)
	w.Places[addr+":443"] = s.Listener.Addr().String()
}

// write stores the world's file and certificate in dir.
func (w *testWorld) write(dir string) (name string, err error) {
	b, err := json.Marshal(w.worldFile)
	if err != nil {
		return "", err
	}
	name = filepath.Join(dir, ".world.json")
	return name, os.WriteFile(name, b, 0o644)
}

// cmdWorld is the script command `world`: it starts one, with a host files.test that
// serves the folder srv, a host mcp.test with the scripted MCP server, and writes its certificate authority to world.pem.
func cmdWorld(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: world")
	}
	w := newTestWorld(scriptTB{ts: ts})
	w.serve("files.test", http.FileServer(http.Dir(ts.MkAbs("srv"))))
	mcp := agenttest.MCPHandler()
	w.serve("mcp.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret-of-the-day" || r.Header.Get("X-Team") != "core" {
			http.Error(rw, "who are you", http.StatusUnauthorized)
			return
		}
		mcp.ServeHTTP(rw, r)
	}))
	name, err := w.write(ts.Getenv("WORK"))
	ts.Check(err)
	ts.Setenv(worldEnv, name)
	ts.Check(os.WriteFile(ts.MkAbs("world.pem"), []byte(w.Roots), 0o644))
}

// scriptTB makes a script a testing.TB, as far as a world needs one.
type scriptTB struct {
	testing.TB
	ts *testscript.TestScript
}

func (s scriptTB) Helper()           {}
func (s scriptTB) Fatal(args ...any) { s.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (s scriptTB) Cleanup(f func())  { s.ts.Defer(f) }

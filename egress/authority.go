package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"
)

// authority signs for the hosts to which credentials are bound. It lives as long as
// the process and is trusted inside sandboxes only; its own certificate permits
// nothing but these hosts, should its key ever leak.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
	may  map[string]bool

	mu     sync.Mutex
	leaves map[string]*tls.Certificate // one for each host in may
}

// life of the certificates; longer than any run.
const life = 90 * 24 * time.Hour

func newAuthority(hosts []string) (*authority, error) {
	a := &authority{may: map[string]bool{}, leaves: map[string]*tls.Certificate{}}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	t := certTemplate("flow: this run only")
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign
	t.PermittedDNSDomainsCritical = true
	for _, h := range hosts {
		target, err := parseAuthority(h, 443)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", shown(h), err)
		}
		a.may[target.Host] = true
		if target.IP.IsValid() {
			t.PermittedIPRanges = append(t.PermittedIPRanges, hostNet(target.IP))
			continue
		}
		t.PermittedDNSDomains = append(t.PermittedDNSDomains, target.Host)
	}
	// A kind of name without any constraint would be free.
	if len(t.PermittedDNSDomains) == 0 {
		t.PermittedDNSDomains = []string{"invalid"}
	}
	if len(t.PermittedIPRanges) == 0 {
		t.PermittedIPRanges = []*net.IPNet{hostNet(netip.IPv4Unspecified())}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("make the run's certificate authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read the run's certificate authority: %w", err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a, nil
}

func hostNet(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

func certTemplate(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails (crypto/rand)
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life)}
}

func (a *authority) covers(t Target) bool { return a.may[t.Host] }

// leaf is the certificate of a host that the authority covers.
func (a *authority) leaf(t Target) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.leaves[t.Host]; c != nil {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := certTemplate(t.Host[:min(len(t.Host), 64)])
	tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if t.IP.IsValid() {
		tmpl.IPAddresses = []net.IP{t.IP.AsSlice()}
	} else {
		tmpl.DNSNames = []string{t.Host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}
	a.leaves[t.Host] = c
	return c, nil
}

// CertPEM is the certificate that sandboxes have to trust; nil where no credential
// is bound to a host.
func (p *Proxy) CertPEM() []byte {
	if p.authority == nil {
		return nil
	}
	return p.authority.pem
}

// intercept opens the TLS of a connection to a host with a credential.
func (p *Proxy) intercept(c *Client, conn net.Conn, rt route) {
	b := &bound{Conn: conn, client: c, route: rt, done: make(chan struct{})}
	p.hand(tls.Server(b, &tls.Config{
		NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != "" || !rt.target.IP.IsValid() {
				name, _, err := parseHost(hello.ServerName)
				if err != nil || name != rt.target.Host {
					reason := "the server name in TLS (SNI) is " + shown(hello.ServerName)
					c.refuse(rt.target, reason)
					return nil, fmt.Errorf("refused: %s", reason)
				}
			}
			return p.authority.leaf(rt.target)
		},
	}), b)
}

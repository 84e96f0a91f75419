package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Target is a destination in its one normal form.
type Target struct {
	// Host is a lower-case name without a trailing dot, or an IP address.
	Host string
	Port int
	// IP is set where Host is an address.
	IP netip.Addr
}

// String is host:port.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

// headerFor is what stands in a Host header.
func (t Target) headerFor(scheme string) string {
	if scheme == "http" && t.Port == 80 || scheme == "https" && t.Port == 443 {
		if t.IP.Is6() {
			return "[" + t.Host + "]"
		}
		return t.Host
	}
	return t.String()
}

var (
	errHost = errors.New("not a host name")
	errPort = errors.New("not a port")
)

// parseHost brings a name or an address into normal form. It is strict: letters,
// digits, hyphens and underscores in labels; internationalised names in their ASCII
// form; and no other way to write an address than the canonical one (not 0x7f.1,
// not 2130706433), because others would read it differently.
func parseHost(s string) (host string, ip netip.Addr, err error) {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		ip, err := netip.ParseAddr(s[1 : len(s)-1])
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", ip, errHost
		}
		return ip.Unmap().String(), ip.Unmap(), nil
	}
	s = strings.TrimSuffix(s, ".")
	if len(s) == 0 || len(s) > 253 {
		return "", ip, errHost
	}
	b := []byte(s)
	start := 0
	for i := 0; i <= len(b); i++ {
		if i == len(b) || b[i] == '.' {
			label := b[start:i]
			if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
				return "", ip, errHost
			}
			start = i + 1
			continue
		}
		switch c := b[i]; {
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return "", ip, errHost
		}
	}
	host = string(b)
	last := host[strings.LastIndexByte(host, '.')+1:]
	if !isNumber(last) {
		return host, ip, nil
	}
	// It ends in a number, so it is an IPv4 address or nothing.
	if ip, err = netip.ParseAddr(host); err != nil || !ip.Is4() {
		return "", ip, errHost
	}
	return host, ip, nil
}

// isNumber: decimal, octal or hexadecimal, as inet_aton(3) reads a part.
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// parseAuthority reads host:port; a missing port is def, 0 for "required".
func parseAuthority(s string, def int) (Target, error) {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if port == "" {
			return Target{}, errPort
		}
	}
	var t Target
	var err error
	if t.Host, t.IP, err = parseHost(host); err != nil {
		return Target{}, err
	}
	t.Port = def
	if port != "" {
		if t.Port, err = strconv.Atoi(port); err != nil || strings.Trim(port, "0123456789") != "" || t.Port > 65535 {
			return Target{}, errPort
		}
	}
	if t.Port < 1 {
		return Target{}, errPort
	}
	return t, nil
}

// shown is a hostile text in an error or event: short and quoted.
func shown(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}

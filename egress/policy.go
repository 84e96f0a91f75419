package egress

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Rule allows one host, or the names below one.
type Rule struct {
	// Host is a name, "*.name" for all names below it (at any depth, not itself), or
	// an IP address.
	Host string
	// Ports; none means 80 and 443.
	Ports []int
	// Methods and Paths narrow plain HTTP and hosts with an injected credential:
	// none means all. A path pattern may hold *, which stands for any text. A rule
	// with either allows nothing whose requests cannot be read.
	Methods, Paths []string
}

// Policy is what a Client may reach: what one of the rules allows.
type Policy struct{ rules []rule }

type rule struct {
	Rule
	suffix string // ".name" of a wildcard
	ip     netip.Addr
}

var defaultPorts = []int{80, 443}

// NewPolicy checks the rules. The language has checked them before, with places;
// this is for whoever calls the package otherwise.
func NewPolicy(rules []Rule) (*Policy, error) {
	p := &Policy{}
	for _, r := range rules {
		c := rule{Rule: r}
		name, wild := strings.CutPrefix(r.Host, "*.")
		host, ip, err := parseHost(name)
		if err != nil || wild && (ip.IsValid() || !strings.Contains(host, ".")) {
			return nil, fmt.Errorf("allow %s: not a host name, *.name or address", shown(r.Host))
		}
		c.Host, c.ip = host, ip
		if wild {
			c.suffix = "." + host
		}
		if len(c.Ports) == 0 {
			c.Ports = defaultPorts
		}
		for _, port := range c.Ports {
			if port < 1 || port > 65535 {
				return nil, fmt.Errorf("allow %s: %d is not a port", shown(r.Host), port)
			}
		}
		p.rules = append(p.rules, c)
	}
	return p, nil
}

func (r *rule) hasHost(t Target) bool {
	if r.suffix != "" {
		return !t.IP.IsValid() && len(t.Host) > len(r.suffix) && strings.HasSuffix(t.Host, r.suffix)
	}
	if r.ip.IsValid() {
		return r.ip == t.IP
	}
	return r.Host == t.Host
}

// Ports that the policy names at all, sorted.
func (p *Policy) Ports() []int {
	var ports []int
	for i := range p.rules {
		ports = append(ports, p.rules[i].Ports...)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// Why a target is refused, in the words of the events.
const (
	reasonHost   = "not in the step's allow list"
	reasonPort   = "the step's allow list has this host with other ports"
	reasonMethod = "the step's allow list has this host with other methods or paths"
	reasonOpaque = "the step's allow list names methods or paths of this host, and they cannot be seen in TLS"
)

// host decides on a connection whose requests, if there are any, are decided later
// (opaque false) or cannot be seen (opaque true). "" allows.
func (p *Policy) host(t Target, opaque bool) (reason string) {
	reason = reasonHost
	for i := range p.rules {
		r := &p.rules[i]
		switch {
		case !r.hasHost(t):
		case !slices.Contains(r.Ports, t.Port):
			if reason == reasonHost {
				reason = reasonPort
			}
		case opaque && len(r.Methods)+len(r.Paths) > 0:
			reason = reasonOpaque
		default:
			return ""
		}
	}
	return reason
}

// knows reports whether a name may be looked up: whether it is allowed on any port.
func (p *Policy) knows(host string) bool {
	t := Target{Host: host}
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.hasHost(t) })
}

// spelt reports whether a rule names the target itself: private addresses are
// dialled only then.
func (p *Policy) spelt(t Target) bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool {
		return r.suffix == "" && r.hasHost(t) && slices.Contains(r.Ports, t.Port)
	})
}

// request decides on one HTTP request. "" allows.
func (p *Policy) request(t Target, method string, u *url.URL) (reason string) {
	if reason = p.host(t, false); reason != "" {
		return reason
	}
	for i := range p.rules {
		r := &p.rules[i]
		if !r.hasHost(t) || !slices.Contains(r.Ports, t.Port) {
			continue
		}
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			continue
		}
		if len(r.Paths) == 0 || plainPath(u) && slices.ContainsFunc(r.Paths, func(pattern string) bool { return matches(pattern, u.Path) }) {
			return ""
		}
	}
	return reasonMethod
}

// plainPath: every server reads it alike. "/a/../b", "//", "%2f" do not match any
// pattern.
func plainPath(u *url.URL) bool {
	raw := strings.ToLower(u.EscapedPath())
	for _, odd := range [...]string{"%2f", "%5c", "%2e", "%00", "%25", "\\", ";"} {
		if strings.Contains(raw, odd) {
			return false
		}
	}
	p := u.Path
	return strings.HasPrefix(p, "/") && (path.Clean(p) == p || path.Clean(p)+"/" == p)
}

// matches: * stands for any text, "/" included.
func matches(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

package workflow

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The modes of a network.
const (
	NetworkNone  = "none"
	NetworkFull  = "full"
	NetworkAllow = "allow"
)

// Network is what a step may reach.
type Network struct {
	Mode  string      // none, full or allow
	Allow []AllowHost // of mode allow
	Pos   Pos
}

// AllowHost is one entry of `allow`.
type AllowHost struct {
	// Host is a lower-case name, "*.name", or an IP address.
	Host string `json:"host"`
	// Ports; none means 80 and 443.
	Ports []int `json:"ports,omitempty"`
	// Methods and Paths narrow requests that can be read; none means all.
	Methods []string `json:"methods,omitempty"`
	Paths   []string `json:"paths,omitempty"`
	Pos     Pos      `json:"-"`
}

// canonical is the network in the form that is hashed: "" for none.
func (n Network) canonical() string {
	switch n.Mode {
	case NetworkAllow:
		b, _ := json.Marshal(n.Allow) // strings and numbers cannot fail to encode
		return string(b)
	case NetworkFull:
		return NetworkFull
	}
	return ""
}

// String is the network in words.
func (n Network) String() string {
	if n.Mode != NetworkAllow {
		return n.Mode
	}
	var hosts []string
	for _, a := range n.Allow {
		text := a.Host
		for i, port := range a.Ports {
			sep := ","
			if i == 0 {
				sep = ":"
			}
			text += sep + strconv.Itoa(port)
		}
		if len(a.Methods)+len(a.Paths) > 0 {
			text += " (" + strings.TrimSpace(strings.Join(a.Methods, " ")+" "+strings.Join(a.Paths, " ")) + ")"
		}
		hosts = append(hosts, text)
	}
	return "only " + strings.Join(hosts, ", ")
}

// Reaches reports whether an entry of the list allows a host and port.
func (n Network) Reaches(host string, port int) bool {
	return slices.ContainsFunc(n.Allow, func(a AllowHost) bool {
		suffix, wild := strings.CutPrefix(a.Host, "*")
		if a.Host != host && !(wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix)) {
			return false
		}
		return slices.Contains(a.Ports, port) || len(a.Ports) == 0 && (port == 80 || port == 443)
	})
}

// network reads the value of a network key.
func (p *fileParser) network(c Context, k, n *yaml.Node) Network {
	out := Network{Mode: NetworkNone, Pos: pos(n)}
	if real(n).Kind == yaml.ScalarNode {
		if strings.Contains(real(n).Value, "${{") {
			p.noExpression(n, "network")
			return out
		}
		out.Mode = p.word(c, k, n)
		return out
	}
	written := false
	ok := p.mapping(n, inNetwork, func(k, v *yaml.Node) bool {
		if k.Value != "allow" {
			return false
		}
		written = true
		p.list(v, "allow", func(x *yaml.Node) {
			if a, ok := p.allowHost(x); ok {
				out.Allow = append(out.Allow, a)
			}
		})
		if v := real(v); v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
			d := p.at("required", v, "allow is empty")
			d.Hint = "network: none  reaches nothing"
		}
		return true
	})
	if ok && !written {
		d := p.at("required", n, "network has no list of hosts")
		d.Expected = []string{"none", "full", "{allow: [example.com]}"}
	}
	out.Mode = NetworkAllow
	return out
}

func (r *reader) noExpression(n *yaml.Node, what string) {
	d := r.at("policy", real(n), "%s takes no expressions", what)
	d.Hint = "what a step may do is fixed before anything runs"
}

func (p *fileParser) allowHost(n *yaml.Node) (a AllowHost, ok bool) {
	a.Pos = pos(n)
	if real(n).Kind == yaml.ScalarNode {
		return a, p.hostAndPort(n, &a)
	}
	p.mapping(n, inHost, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "host":
			ok = p.hostAndPort(v, &a)
		case "ports":
			p.list(v, "ports", func(x *yaml.Node) {
				if port := p.integer(inHost, k, x); port > 0 {
					a.Ports = append(a.Ports, port)
				}
			})
		case "methods":
			p.list(v, "methods", func(x *yaml.Node) { a.Methods = append(a.Methods, p.word(inHost, k, x)) })
		case "paths":
			for _, s := range p.grants(v, "paths") {
				if !strings.HasPrefix(s, "/") {
					p.at("pattern", v, "a path starts with /")
				}
				a.Paths = append(a.Paths, s)
			}
		default:
			return false
		}
		return true
	})
	if valueOf(n, "host") == nil && real(n).Kind == yaml.MappingNode {
		p.at("required", n, "the entry of allow has no host")
	}
	return a, ok
}

// hostAndPort reads "host", "host:port", "*.host".
func (p *fileParser) hostAndPort(n *yaml.Node, a *AllowHost) bool {
	text, ok := p.str(n, "host")
	switch {
	case !ok:
		return false
	case strings.Contains(text, "${{"):
		p.noExpression(n, "allow")
		return false
	}
	host, port := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 && strings.Count(text, ":") == 1 || i > 0 && text[i-1] == ']' {
		host, port = text[:i], text[i+1:]
		v, err := strconv.Atoi(port)
		if err != nil || v < 1 || v > 65535 || !number().MatchString(port) {
			d := p.at("host", real(n), "%q is not a port", port)
			d.Hint = "a port is a number from 1 to 65535"
			return false
		}
		a.Ports = append(a.Ports, v)
	}
	var why, hint string
	a.Host, why, hint = hostForm(host)
	if why != "" {
		d := p.at("host", real(n), "%q %s", text, why)
		d.Hint = hint
		return false
	}
	return true
}

var labels = lazily(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// hostForm is the normal form of a host of the allow list, or why it is none.
// Package egress, which enforces it, has the same rules.
func hostForm(s string) (host, why, hint string) {
	if strings.Contains(s, "://") || strings.Contains(s, "/") {
		return "", "is not a host name", "name the host alone; methods and paths: {host: example.com, paths: [/v1/*]}"
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		ip = ip.Unmap()
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.Zone() != "" {
			return "", "is an address that no step reaches", "addresses of this machine, of its link and of cloud metadata are always refused"
		}
		return ip.String(), "", ""
	}
	name, wild := strings.CutPrefix(s, "*.")
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case s == "*":
		return "", "is every host", "network: full  reaches everything"
	case !labels().MatchString(name) || len(name) > 253 || numeric(last):
		hint = "a name in ASCII letters (xn--… for others), *.name for all names below one, or an IP address"
		return "", "is not a host name", hint
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		return "", "is this machine, which no step reaches", "what runs in the same sandbox is reached without any network"
	case wild && !strings.Contains(name, "."):
		return "", "is too wide", "name at least two labels after the *, as *.example.com"
	}
	return s, "", ""
}

// numeric: an IPv4 address in another form than the usual one ends like this.
func numeric(label string) bool {
	hex, ok := strings.CutPrefix(label, "0x")
	if ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// Inject is where a secret's value is put in, outside of the sandbox.
type Inject struct {
	Host   string // a name, lower-case
	Port   int    // 443 unless written
	Header string // default Authorization
	Format string // {} stands for the value; default "{}"
	Pos    Pos
}

var headerName = lazily("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// ownHeaders belong to the connection, not to the author.
var ownHeaders = []string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "proxy-authorization",
	"proxy-connection", "keep-alive", "accept-encoding", "range", "if-range"}

func (p *fileParser) inject(n *yaml.Node) *Inject {
	in := &Inject{Header: "Authorization", Format: "{}", Port: 443, Pos: pos(n)}
	p.mapping(n, inInject, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "host":
			var a AllowHost
			if p.hostAndPort(v, &a) {
				in.Host = a.Host
				if len(a.Ports) > 0 {
					in.Port = a.Ports[0]
				}
			}
			if strings.HasPrefix(a.Host, "*") {
				p.at("host", v, "a secret is bound to one host, not to %s", a.Host)
			}
		case "header":
			in.Header, _ = p.str(v, "header")
			if !headerName().MatchString(in.Header) || slices.Contains(ownHeaders, strings.ToLower(in.Header)) {
				p.at("header", v, "%q is not a header that can carry a secret", in.Header)
			}
		case "format":
			in.Format, _ = p.str(v, "format")
			if strings.Count(in.Format, "{}") != 1 || strings.ContainsAny(in.Format, "\r\n\x00") {
				p.at("pattern", v, "format holds {} once, where the value goes")
			}
		default:
			return false
		}
		return true
	})
	if valueOf(n, "host") == nil && real(n).Kind == yaml.MappingNode {
		p.at("required", n, "inject has no host")
	}
	return in
}

// injectable checks a step's secrets against its network.
func (p *fileParser) injectable(s *Step, n *yaml.Node) {
	for _, name := range s.Secrets {
		in := p.secret(name).Inject
		switch {
		case in == nil && s.Kind == KindAgent && !slices.Contains(s.Exposed, name):
			d := p.at("secret-exposed", n, "agent step %s would get secret %s as it is", s.ID, name)
			d.Hint = "bind it to a host (inject) so that the agent never has it, or write {name: " + name + ", expose: true}"
		case in == nil || in.Host == "":
		case s.Network.Mode == NetworkFull:
			d := p.at("network", n, "secret %s is injected by the proxy of an allow list, and step %s has the whole network", name, s.ID)
			d.Hint = "network: {allow: [" + in.Host + ", …]}"
		case !s.Network.Reaches(in.Host, in.Port):
			d := p.at("network", n, "secret %s goes to %s, which step %s cannot reach", name, in.Target(), s.ID)
			d.Hint = "network: {allow: [" + in.Target() + "]}"
		}
	}
}

// Target is the host, with its port unless that is 443.
func (i *Inject) Target() string {
	if i.Port == 443 {
		return i.Host
	}
	return i.Host + ":" + strconv.Itoa(i.Port)
}

func (p *fileParser) secret(name string) Secret {
	for _, s := range p.w.Secrets {
		if s.Name == name {
			return s
		}
	}
	return Secret{}
}

// readable warns of rules that the requests of no usual connection can be held to.
func (p *fileParser) readable(s *Step) {
	for _, a := range s.Network.Allow {
		if len(a.Methods)+len(a.Paths) == 0 || len(a.Ports) > 0 && !slices.Contains(a.Ports, 443) || a.Pos.Line == 0 {
			continue
		}
		bound := slices.ContainsFunc(s.Secrets, func(name string) bool {
			in := p.secret(name).Inject
			return in != nil && in.Host == a.Host
		})
		if !bound && !p.warned[a.Pos] {
			p.warned[a.Pos] = true
			d := p.add("unreadable", a.Pos, 1, "methods and paths cannot be seen in TLS: this entry allows plain HTTP to %s only", a.Host)
			d.Severity = SeverityWarning
			d.Hint = "bind a secret to the host (secrets: inject), or leave methods and paths out"
		}
	}
}

package workflow

import (
	"strconv"

	"gopkg.in/yaml.v3"
)

// sizePattern is the form of a size: a whole number with a binary unit.
const sizePattern = `^[1-9][0-9]{0,8}(KiB|MiB|GiB|TiB)$`

var (
	sizeForm   = lazily(sizePattern)
	cpusForm   = lazily(`^[0-9]{1,4}(\.[0-9]{1,2})?$`)
	sizeShifts = map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
)

// limits reads `sandbox.limits`.
func (p *fileParser) limits(n *yaml.Node) (l Limits) {
	p.mapping(n, ctxLimits, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "cpus":
			l.CPUs = p.cpus(v)
		case "memory":
			l.Memory = p.size(v, k.Value)
		case "pids":
			l.Pids = p.integer(ctxLimits, k, v)
		case "file_size":
			l.FileSize = p.size(v, k.Value)
		case "open_files":
			l.OpenFiles = p.integer(ctxLimits, k, v)
		case "tmp":
			l.Tmp = p.size(v, k.Value)
		case "disk":
			l.Disk = p.size(v, k.Value)
		default:
			return false
		}
		return true
	})
	return l
}

// size reads bytes with a unit.
func (p *fileParser) size(n *yaml.Node, what string) int64 {
	n = real(n)
	if n.Kind != yaml.ScalarNode || !sizeForm().MatchString(n.Value) {
		d := p.at("size", n, "%s is not a size", what)
		d.Expected = []string{"512MiB", "4GiB", "64KiB"}
		return 0
	}
	unit := n.Value[len(n.Value)-3:]
	count, _ := strconv.ParseInt(n.Value[:len(n.Value)-3], 10, 64) // the form holds: at most 9 digits
	return count << sizeShifts[unit]
}

func (p *fileParser) cpus(n *yaml.Node) float64 {
	n = real(n)
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || !cpusForm().MatchString(n.Value) || v <= 0 || v > 1024 {
		d := p.at("number", n, "cpus is not a number of processors")
		d.Expected = []string{"0.5", "1", "2"}
		return 0
	}
	return v
}

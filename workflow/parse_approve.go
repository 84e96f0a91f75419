package workflow

import (
	"slices"

	"gopkg.in/yaml.v3"
)

var choiceWord = lazily(wordPattern)

// approve reads `approve:`, a message or a map.
func (p *fileParser) approve(n *yaml.Node, sc *scope) *ApproveStep {
	a := &ApproveStep{Pos: pos(n), Choices: []string{ChoiceApprove, ChoiceReject}}
	x := real(n)
	if x.Kind == yaml.SequenceNode {
		p.at("type", n, "approve is a list; expected a message, or a map with message and choices")
		return a
	}
	if x.Kind != yaml.MappingNode {
		a.Message = p.question(n, "approve", sc)
		return a
	}
	message := false
	p.mapping(n, ctxApprove, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "message":
			message = true
			a.Message = p.question(v, "message", sc)
		case "choices":
			a.Choices = p.choices(v)
		case "timeout":
			a.Timeout = p.duration(v, "timeout")
		default:
			return false
		}
		return true
	})
	if !message {
		p.at("required", n, "approve has no message: what is the person asked?")
	}
	return a
}

// question reads the message, which has to say something.
func (p *fileParser) question(n *yaml.Node, what string, sc *scope) *Template {
	if x := real(n); x.Kind == yaml.ScalarNode && (x.Tag == "!!null" || x.Value == "") {
		p.at("required", n, "%s is empty: what is the person asked?", what)
		return nil
	}
	return p.template(n, what, sc, nil)
}

func (p *fileParser) choices(n *yaml.Node) []string {
	var out []string
	count := 0
	p.list(n, "choices", func(x *yaml.Node) {
		count++
		word, ok := p.name(x, "choices")
		switch {
		case !ok:
		case !choiceWord().MatchString(word):
			p.at("name", real(x), "a choice is a word of letters, digits, _ and -, and starts with a letter: it is typed in a command")
		case slices.Contains(out, word):
			p.at("duplicate-key", real(x), "choice %q is here a second time", word)
		default:
			out = append(out, word)
		}
	})
	switch {
	case real(n).Kind == yaml.SequenceNode && count == 0:
		p.at("required", n, "choices is an empty list: name the answers")
	case len(out) == 1 && out[0] == ChoiceReject:
		p.at("required", n, "choices has only %s: name an answer with which the run goes on", ChoiceReject)
	}
	return out
}

// topList is the list of the top level that holds step i.
func (p *fileParser) topList(i int) *stepList {
	l := &p.lists[p.places[i].list]
	for l.holder >= 0 {
		l = &p.lists[p.places[l.holder].list]
	}
	return l
}

// isLate: on_failure and finally, and the groups in them.
func (p *fileParser) isLate(i int) bool { return p.topList(i).late }

// keyNode is the key of that name in a map, nil when it is not there.
func keyNode(n *yaml.Node, name string) *yaml.Node {
	n = real(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i]
		}
	}
	return nil
}

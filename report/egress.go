package report

import (
	"bytes"
	"fmt"
	"strconv"

	"flowrun.dev/flow/engine"
)

// AddEgress folds an event into the list of a run's destinations: the newest count of
// each attempt and kind.
func AddEgress(list []engine.Egress, e engine.Egress) []engine.Egress {
	for i := range list {
		o := &list[i]
		if o.Step == e.Step && o.Attempt == e.Attempt && o.Host == e.Host && o.Port == e.Port && o.Verdict == e.Verdict && o.Reason == e.Reason {
			*o = e
			return list
		}
	}
	return append(list, e)
}

func destination(e engine.Egress) string {
	if e.Port == 0 {
		return e.Host
	}
	return e.Host + ":" + strconv.Itoa(e.Port)
}

// showEgress is the table of destinations.
func showEgress(b *bytes.Buffer, list []engine.Egress, s Style) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(b)
	t := &table{cols: []column{
		{head: "DESTINATION", least: 16},
		{head: "STEP", keep: 2, least: 6},
		{head: "NETWORK"},
		{head: "TIMES", keep: 4, right: true},
		{head: "SENT", keep: 3, right: true},
		{head: "RECEIVED", keep: 3, right: true},
		{head: "WHY", keep: 1, least: 12},
	}}
	for _, e := range list {
		tone := toneGood
		if e.Verdict != "allowed" {
			tone = toneWarn
		}
		row := []cell{{clean(destination(e)), toneName}, {text: clean(e.Step)}, {clean(e.Verdict), tone}, {text: strconv.FormatInt(e.Count, 10)}, {}, {}, {clean(e.Reason), toneDim}}
		if e.Verdict == "allowed" {
			row[4].text, row[5].text = bytesText(e.Sent), bytesText(e.Received)
		}
		t.rows = append(t.rows, row)
	}
	return t.write(b, s)
}

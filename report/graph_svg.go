package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// svgStyle uses classes, so that a page can restyle the picture; it follows the
// reader's light or dark mode.
const svgStyle = `
  svg { font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
  .bg { fill: #ffffff; } .box { fill: #ffffff; stroke: #cfd6df; } .many { fill: #f5f7fa; stroke: #dde3ea; }
  .id { fill: #17202b; font-weight: 600; } .note, .cond, .head2 { fill: #66717f; } .head { fill: #17202b; font-weight: 650; }
  .edge { fill: none; stroke: #a3adba; stroke-width: 1.4; } .across { stroke-dasharray: 5 4; } .tip { fill: #a3adba; }
  .run { fill: #4a7dc9; } .agent { fill: #8a5cd1; } .other { fill: #4f9a94; } .badge { fill: #fff4d6; stroke: #e0b64a; } .if { fill: #8a6410; }
  @media (prefers-color-scheme: dark) {
    .bg { fill: #10151c; } .box { fill: #1a212b; stroke: #374252; } .many { fill: #151b23; stroke: #2a3442; }
    .id, .head { fill: #e8edf3; } .note, .cond, .head2 { fill: #98a4b3; } .edge { stroke: #5b6778; } .tip { fill: #5b6778; }
    .badge { fill: #3a3116; stroke: #8a6d22; } .if { fill: #e7c66b; }
  }
`

// GraphSVG draws the graph. The picture needs no program and no font of its own.
func GraphSVG(w io.Writer, g Graph) error {
	const margin, top = 28.0, 74.0
	l := place(g)
	wide := max(l.w, textWidth(clean(g.Title), 18)+40, 260) + 2*margin
	high := l.h + top + margin + 26
	shift := (wide - 2*margin - l.w) / 2
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, wide, high, wide, high, escapeXML("workflow "+clean(g.Title)))
	fmt.Fprintf(&b, "\n<style>%s</style>\n<rect class=\"bg\" width=\"100%%\" height=\"100%%\"/>\n", svgStyle)
	fmt.Fprintf(&b, `<text class="head" x="%.0f" y="34" font-size="18">%s</text><text class="head2" x="%.0f" y="54" font-size="12">%s</text>`+"\n", margin, escapeXML(clean(g.Title)), margin, escapeXML(g.Note))
	fmt.Fprintf(&b, "<g transform=\"translate(%.1f %.1f)\">\n", margin+shift, top)
	for i := range l.blocks {
		if bl := &l.blocks[i]; len(bl.nodes) > 1 {
			fmt.Fprintf(&b, `<rect class="many" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="12"/>`+"\n", bl.x-bl.w/2, bl.y, bl.w, bl.h)
		}
	}
	for _, r := range l.routes {
		l.drawRoute(&b, r)
	}
	for i := range l.blocks {
		l.drawBlock(&b, g, &l.blocks[i])
	}
	l.drawFinally(&b, g)
	b.WriteString("</g>\n")
	drawLegend(&b, g, margin, high-14)
	b.WriteString("</svg>\n")
	return writeAll(w, b.String())
}

func escapeXML(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

// drawRoute draws an edge as a smooth line that leaves and arrives vertically.
func (l *layout) drawRoute(b *strings.Builder, r route) {
	class := "edge"
	if r.across {
		class += " across"
	}
	fmt.Fprintf(b, `<path class="%s" d="M%.1f %.1f`, class, r.points[0].x, r.points[0].y)
	for k := range r.points[1:] {
		p, q := r.points[k], r.points[k+1]
		end := q.y
		if k == len(r.points)-2 {
			end -= 5 // the tip
		}
		if q.y < p.y { // into the next column: below, up between the columns, and in from above
			mid := (p.x + q.x) / 2
			if q.x > p.x {
				mid = l.leftOf(r.to) - columnGap/2
			}
			fmt.Fprintf(b, " V%.1f Q%.1f %.1f %.1f %.1f H%.1f Q%.1f %.1f %.1f %.1f V%.1f Q%.1f %.1f %.1f %.1f H%.1f Q%.1f %.1f %.1f %.1f V%.1f",
				p.y+8, p.x, p.y+16, p.x+8, p.y+16, mid-8, mid, p.y+16, mid, p.y+8, q.y-12, mid, q.y-20, mid+8, q.y-20, q.x-8, q.x, q.y-20, q.x, q.y-12, end)
			continue
		}
		half := (q.y - p.y) / 2
		fmt.Fprintf(b, " C%.1f %.1f %.1f %.1f %.1f %.1f", p.x, p.y+half, q.x, q.y-half, q.x, end)
	}
	last := r.points[len(r.points)-1]
	fmt.Fprintf(b, `"/><path class="tip" d="M%.1f %.1f l-4 -7 h8 z"/>`+"\n", last.x, last.y)
}

// leftOf is the left edge of the column of a block.
func (l *layout) leftOf(i int) float64 {
	for _, from := range slices.Backward(l.lefts) {
		if l.blocks[i].x >= from {
			return from
		}
	}
	return 0
}

func (l *layout) drawBlock(b *strings.Builder, g Graph, bl *block) {
	if bl.bend {
		return
	}
	if len(bl.nodes) == 1 {
		drawBox(b, g.Nodes[bl.nodes[0]], bl.x-l.boxW/2, bl.y, l.boxW, bl.high)
		return
	}
	for k, i := range bl.nodes {
		x := bl.x - bl.w/2 + blockPad + float64(k%bl.perRow)*(l.boxW+blockGap)
		y := bl.y + blockPad + float64(k/bl.perRow)*(bl.high+blockGap)
		drawBox(b, g.Nodes[i], x, y, l.boxW, bl.high)
	}
}

func kindClass(kind string) string {
	switch kind {
	case string(workflow.KindRun), string(workflow.KindAgent):
		return kind
	}
	return "other"
}

// drawBox draws one step: a bar in the colour of its kind, its id, a note, a
// badge for a condition, and a mark for its status.
func drawBox(b *strings.Builder, n GraphNode, x, y, wide, high float64) {
	border := ""
	if n.Status != "" {
		border = fmt.Sprintf(` style="stroke:%s"`, statusColor[n.Status])
	}
	dash := ""
	if n.Status == engine.StepIsSkipped || n.Status == engine.StepIsNotRun {
		dash = ` stroke-dasharray="4 3"`
	}
	fmt.Fprintf(b, `<g><title>%s</title><rect class="box" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="7"%s%s/>`, escapeXML(tooltip(n)), x, y, wide, high, border, dash)
	fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%.1f" width="4" height="%.1f" rx="2"/>`, kindClass(n.Kind), x+6, y+7, high-14)
	room := wide - 18 - 10
	right := x + wide - 10
	if n.Status != "" {
		drawMark(b, n.Status, right-7, y+high/2)
		room -= 22
		right -= 22
	}
	if n.If != "" {
		fmt.Fprintf(b, `<rect class="badge" x="%.1f" y="%.1f" width="18" height="15" rx="4"/><text class="if" x="%.1f" y="%.1f" font-size="10" text-anchor="middle">if</text>`, right-18, y+high/2-7.5, right-9, y+high/2+3.5)
		room -= 24
	}
	if high < boxHigh {
		fmt.Fprintf(b, `<text class="id" x="%.1f" y="%.1f" font-size="12">%s</text></g>`+"\n", x+18, y+high/2+4.2, escapeXML(shorten(clean(n.ID), 12.6, room)))
		return
	}
	fmt.Fprintf(b, `<text class="id" x="%.1f" y="%.1f" font-size="13">%s</text>`, x+18, y+18.5, escapeXML(shorten(clean(n.ID), 13.6, room)))
	fmt.Fprintf(b, `<text class="note" x="%.1f" y="%.1f" font-size="11">%s</text></g>`+"\n", x+18, y+34, escapeXML(shorten(n.Note, 11, room)))
}

func tooltip(n GraphNode) string {
	text := clean(n.ID) + " · " + n.Kind
	if n.Note != "" {
		text += " · " + n.Note
	}
	if n.If != "" {
		text += "\nif " + clean(n.If)
	}
	if n.Status != "" {
		text += "\n" + string(n.Status)
	}
	return text
}

// drawMark draws a status as a sign in a circle, without a font.
func drawMark(b *strings.Builder, s engine.StepStatus, x, y float64) {
	sign := "M-3 0 h6"
	switch s {
	case engine.StepSucceeded:
		sign = "M-3.2 0.2 l2.3 2.4 l4.2 -4.8"
	case engine.StepFailed, engine.StepCancelled:
		sign = "M-2.6 -2.6 l5.2 5.2 M2.6 -2.6 l-5.2 5.2"
	case engine.StepTimedOut:
		sign = "M0 -3.2 v3.4 h2.6"
	case engine.StepWaiting:
		sign = "M-2 -1.6 a2 2 0 1 1 2.4 2 v1.2 M0.2 3.6 v0.2"
	case engine.StepRunning:
		sign = "M-2 -3 l4.6 3 l-4.6 3 z"
	}
	fmt.Fprintf(b, `<g transform="translate(%.1f %.1f)"><circle r="7.5" fill="%s"/><path d="%s" fill="none" stroke="#fff" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/></g>`, x, y, statusColor[s], sign)
}

// drawFinally parts the steps that run at the end from the others.
func (l *layout) drawFinally(b *strings.Builder, g Graph) {
	y, left := 1e18, 1e18
	others := false
	for i := range l.blocks {
		bl := &l.blocks[i]
		if bl.bend {
			continue
		}
		if !g.Nodes[bl.nodes[0]].Finally {
			others = true
			continue
		}
		y, left = min(y, bl.y), min(left, bl.x-bl.w/2)
	}
	if y < 1e18 && others {
		fmt.Fprintf(b, `<text class="note" x="%.1f" y="%.1f" font-size="11">finally</text>`+"\n", left+2, y-8)
	}
}

// drawLegend names the colours that are used.
func drawLegend(b *strings.Builder, g Graph, x, y float64) {
	seen := map[string]bool{}
	for _, n := range g.Nodes {
		seen[n.Kind] = true
	}
	for _, kind := range []string{"run", "agent", "approve", "workflow", "steps"} {
		if !seen[kind] {
			continue
		}
		fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%.1f" width="10" height="10" rx="2"/><text class="note" x="%.1f" y="%.1f" font-size="11">%s</text>`+"\n", kindClass(kind), x, y-9, x+15, y, kind)
		x += 15 + textWidth(kind, 11) + 18
	}
}

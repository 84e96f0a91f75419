package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func sample() *Manifest {
	h := Hash{1, 2, 3}
	return &Manifest{Entries: []Entry{
		{Path: "a", Kind: KindDir, Mode: 0o755, MtimeNS: -5},
		{Path: "a-b", Kind: KindFile, Mode: 0o4755, Size: 7, Hash: h, Xattrs: map[string]string{"user.z": "1", "user.a": "\x00"}},
		{Path: "a/f", Kind: KindFile, Mode: 0o644, MtimeNS: 1 << 60, Hash: h, Size: 7},
		{Path: "a/g", Kind: KindFile, Mode: 0o644, MtimeNS: 1 << 60, Hash: h, Size: 7, HardlinkTo: "a/f"},
		{Path: "a/h", Kind: KindFile, Mode: 0o644, MtimeNS: 1 << 60, Hash: h, Size: 7, HardlinkTo: "a/f"},
		{Path: "bad\xff", Kind: KindSymlink, Mode: 0o777, Target: "/etc/shadow"},
		{Path: "p", Kind: KindFifo, Mode: 0o600},
		{Path: "s", Kind: KindSocket, Mode: 0o600},
	}}
}

func TestEncodingIsStable(t *testing.T) {
	t.Parallel()
	m := sample()
	must(t, m.Validate())
	// The ID is kept in databases: a change of it needs a new version.
	const id = "ca39bcdb885b29c2b553583ad575ab6c72a66ab0849eefc73dd7f40fbc26939f"
	if got := m.ID().String(); got != id {
		t.Errorf("the ID of the sample is %s, was %s", got, id)
	}
	b, _ := m.MarshalBinary()
	var back Manifest
	must(t, back.UnmarshalBinary(b))
	sameTree(t, &back, m)
	if back.ID() != m.ID() {
		t.Error("the ID changed on the way")
	}
}

func TestDecoderRefuses(t *testing.T) {
	t.Parallel()
	good, _ := sample().MarshalBinary()
	huge := append([]byte(manifestMagic), manifestVersion)
	huge = binary.AppendUvarint(huge, 1<<40)
	for name, b := range map[string][]byte{
		"nothing":            {},
		"another magic":      []byte("somethingelse"),
		"another version":    append([]byte(manifestMagic), 99, 0),
		"a huge count":       huge,
		"one byte too many":  append(bytes.Clone(good), 0),
		"one byte too few":   good[:len(good)-1],
		"a number too long":  append([]byte(manifestMagic), manifestVersion, 0x80, 0x00),
		"an endless number":  append([]byte(manifestMagic), append([]byte{manifestVersion}, bytes.Repeat([]byte{0xff}, 12)...)...),
		"a path that climbs": (&Manifest{Entries: []Entry{{Path: "../x", Kind: KindDir}}}).encode(),
		"no parent":          (&Manifest{Entries: []Entry{{Path: "a/x", Kind: KindDir}}}).encode(),
		"a file as parent":   (&Manifest{Entries: []Entry{{Path: "a", Kind: KindFifo}, {Path: "a/x", Kind: KindDir}}}).encode(),
		"out of order":       (&Manifest{Entries: []Entry{{Path: "b", Kind: KindDir}, {Path: "a", Kind: KindDir}}}).encode(),
		"twice":              (&Manifest{Entries: []Entry{{Path: "b", Kind: KindDir}, {Path: "b", Kind: KindDir}}}).encode(),
		"a link to nothing":  (&Manifest{Entries: []Entry{{Path: "b", Kind: KindFile, HardlinkTo: "a"}}}).encode(),
		"a trusted xattr":    (&Manifest{Entries: []Entry{{Path: "b", Kind: KindDir, Xattrs: map[string]string{"security.x": ""}}}}).encode(),
		"a long name":        (&Manifest{Entries: []Entry{{Path: strings.Repeat("x", 256), Kind: KindDir}}}).encode(),
	} {
		var m Manifest
		if err := m.UnmarshalBinary(b); !errors.Is(err, ErrInvalidManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeltaRefusesAnotherBase(t *testing.T) {
	t.Parallel()
	base := sample()
	next := &Manifest{Entries: append([]Entry{}, base.Entries[:7]...)}
	next.Entries[6].Mode = 0o640
	d := EncodeDelta(base, next)
	got, err := ApplyDelta(base, d)
	must(t, err)
	sameTree(t, got, next)
	for name, b := range map[string]*Manifest{
		"empty":     nil,
		"the next":  next,
		"same size": {Entries: append(append([]Entry{}, base.Entries[:7]...), Entry{Path: "t", Kind: KindDir})},
	} {
		if _, err := ApplyDelta(b, d); !errors.Is(err, ErrInvalidManifest) {
			t.Errorf("base %s: %v", name, err)
		}
	}
	if same, err := ApplyDeltas(base); err != nil || same != base {
		t.Errorf("no delta at all: %v, %v", same, err)
	}
}

func TestSubtreeRebasesHardlinks(t *testing.T) {
	t.Parallel()
	h := Hash{9}
	f := func(p, to string) Entry { return Entry{Path: p, Kind: KindFile, Hash: h, HardlinkTo: to} }
	m := &Manifest{Entries: []Entry{
		f("a", ""), {Path: "w", Kind: KindDir}, {Path: "w-x", Kind: KindDir},
		f("w/1", "a"), f("w/2", "a"), f("w/3", ""), f("w/4", "w/3"), f("z", "a"),
	}}
	must(t, m.Validate())
	want := &Manifest{Entries: []Entry{f("1", ""), f("2", "1"), f("3", ""), f("4", "3")}}
	sub := m.Subtree("w")
	must(t, sub.Validate())
	sameTree(t, sub, want)
	if n := len(m.Subtree("nowhere").Entries); n != 0 {
		t.Errorf("the subtree of nothing has %d entries", n)
	}
}

func FuzzManifest(f *testing.F) {
	good, _ := sample().MarshalBinary()
	f.Add(good)
	f.Add(EncodeDelta(nil, sample()))
	f.Add([]byte(manifestMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Manifest
		if err := m.UnmarshalBinary(b); err == nil {
			if again, _ := m.MarshalBinary(); !bytes.Equal(again, b) {
				t.Fatalf("two encodings of one tree:\n%x\n%x", b, again)
			}
		} else if !errors.Is(err, ErrInvalidManifest) {
			t.Fatal(err)
		}
		if next, err := ApplyDelta(sample(), b); err == nil {
			must(t, next.Validate())
		} else if !errors.Is(err, ErrInvalidManifest) {
			t.Fatal(err)
		}
	})
}

package main

// whys is what profiles say about targets that are missed, by how their rows begin.
// A line is printed only while one of its rows is missed.
var whys = []struct{ row, why string }{
	{"the binary", "the SDKs of the Messages API, of MCP and of the Agent Client Protocol, net/http with TLS, SQLite and the C library are linked statically. " +
		"Symbols and debug data are stripped already; what is left is code that providers need. A binary of its own per provider was not tried: the sandbox's init and the agents are one program by design."},
	{"start-up", "`flow version` is the floor: the Go runtime, the page faults of a large static binary (784) and the initialisation of packages. Tried: patterns with large repeats are compiled when first used " +
		"(packages 2.5 → 1.3 ms); `GOGC=off` and `GOMAXPROCS=1` change nothing (15.7, 15.8, 16.0 ms beside each other). Above it: opening SQLite and five durable commits with a sync of 0.25–0.4 ms each, six directories of a private copy " +
		"made and removed, the step's own fork and exec (1.5 ms). The peak memory is pages of the binary (the line `memory of flow` tells them apart): the kernel maps its page cache in large pieces at the first touch."},
	{"a step of 1,000 side by side", "each of these steps works on a fork of the workspace, so that its changed files, cache and checkpoint are its own: before forks were used again a directory tree made, filled, walked, merged and removed was 35 % of the profile, " +
		"the command itself 12 %, SQLite 2 %. Tried: a merged fork hands its sandbox to the next one when it is provably clean (driver local 10.5 → 1.1 ms), and the network and trust of a run are not looked up per step (host 1.49 → 1.1 to 1.3 ms). " +
		"The target was set for steps that share one tree."},
	{"a local sandbox made", "two stages of this binary start one after the other (a third of the time is the runtime and page faults), the rest is mounts of the allow-listed root and the network namespace, which the kernel makes in about 1.5 ms."},
	{"200 MB of output", "the profile of the whole machine: `yes` and `head` 48 %, flow 52 %, of which reading the pipe 6 %, the redactor and the counting of lines 0.1 %, the log's compression and write 13 %, the terminal's scrubber 16 % (it looks at eight bytes at a time), " +
		"so that two processors are busy for the whole of it; a bare pipe into `cat` takes 60 % of the time. Of the memory, the line `memory of flow` says what is flow's own."},
	{"validate 10,000 steps", "the definition of a step grew with the keys of the language (39.6 MB before joins, called files, approvals and backgrounds): some 400 bytes a step. What was not tried: to keep what few steps have behind a pointer."},
	{"100000 files, 976 MB: flow run", "a stat of each of 100,000 files and of its attributes is bound by system calls (profile); the first run also stores what it has seen while its first step runs."},
	{"100000 files, 976 MB: flow checkpoint, 10 changed", "the manifest of 100,000 names is copied once a checkpoint; a persistent structure was not tried."},
	{"resume of a run of 1,000 steps", "start-up and the step itself are 15 ms of it. Reading 2,000 events decodes JSON for 17 % of the profile (on all processors), parsing the frozen definition is 11 %, the collector 9 %. Tried: the definition is parsed beside the reading, " +
		"and the summary folds the same events instead of reading records again (whole process 54.5 → 42.4 ms on a busy machine, medians of 25, side by side). A stored copy of the folded state would be faster and could disagree with the events; it was left out."},
}

// Package host runs commands on this machine with no isolation at all, for people
// who know what they run and say so by name (sandbox.driver: host).
//
// A sandbox is a private copy: Spec.Dir/home is the home tree, Spec.Dir/tmp is
// TMPDIR and no part of checkpoints.
//
// Where it differs from the contract of package sandbox:
//
//  1. sandbox.HomeDir does not exist. BaseEnv's HOME is the real directory, and
//     Cmd.Dir is translated: "" or a path at or below sandbox.HomeDir means the
//     same place below the real home; any other path is taken as it is.
//     Environment and arguments are not translated: take HOME from BaseEnv.
//  2. The environment is Cmd.Env and one variable more, FLOW_EXEC_ID, by which a
//     command's processes are found (invariant 1 of package sandbox). A variable
//     of that name in Cmd.Env is replaced.
//  3. Capabilities.KillTree is false (invariant 2). What is killed when the first
//     process ends, or ctx does: its process group; then, on Linux, every process
//     that was made meanwhile and that carries the tag in its environment or is of
//     its session. Not caught: a process that both left the session (setsid) and
//     was started with another environment (env -i), one of another user (sudo), and
//     one that is handed to a running service (systemd-run, docker run, at). On
//     other systems only the process group is killed.
//  4. Commands have this machine's network whatever Spec.Network says. "none" is
//     the default of a workflow that says nothing, so Create cannot tell it from
//     one that asks for none; Capabilities.NoNetwork is false for the preflight,
//     which can. Spec.Hostname is without effect.
//  5. Spec.InPlace makes the workspace a link to a tree of the machine, which is not
//     in Snapshot, and which neither Restore nor Close touches.
//  6. kill -9 of flow ends the first process of each command (PDEATHSIG) and not
//     its children, which do not inherit that (invariant 4). The next flow finds
//     them by the tag and ends them before it takes their directory (EndLeft).
//
// Descriptors: on Linux, Create marks all of this process's descriptors from 3 on
// close-on-exec, once for each sandbox. A program that embeds this driver and opens
// others without O_CLOEXEC later shows them to its commands.
//
// The tree is looked for only where something can be left: the kernel's last
// process number says how many processes were made since the command started
// (none for `true` on a quiet machine), and only those are looked at.
package host

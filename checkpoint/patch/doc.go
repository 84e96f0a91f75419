// Package patch writes what leads from one tree to another as a patch that
// `git apply` takes, or as a table of how much changed.
//
// Words: a File is one changed path with both its sides; a hunk is a run of
// changed lines with its context.
//
// Invariants:
//
//  1. A patch is applied by git to exactly the first tree's files and gives the
//     second's: contents byte by byte, links, and whether the owner may execute.
//     What git cannot say (empty directories, other mode bits, times, attributes,
//     sockets, fifos) is in no patch but in Notes: nothing is left out silently.
//  2. Memory and time are bounded whatever the contents: lines are compared for
//     files up to maxText bytes; larger and binary ones are streamed.
//  3. Output is the contents as they are. Who shows it on a terminal makes it safe
//     to look at.
//
// It imports package checkpoint only.
package patch

// Package tools are the tools of our own conversations: Bash, Read, Write, Edit,
// Glob and Grep, with Claude Code's names and inputs.
//
// Invariants:
//
//  1. A tool does everything by Sandbox.Exec with standard programs (sh, cat, find,
//     grep, xargs, readlink, mkdir, mv, cp): the sandbox is the boundary and every
//     driver will do. Bash needs bash inside.
//  2. Nothing that the model said becomes shell text, but the command of Bash:
//     names are arguments ("$1"), contents go over descriptors.
//  3. What goes wrong with a call is a result for the model (IsError). The error of
//     Run is the place's: the sandbox is lost, or ctx ended.
//  4. Results are bounded, and say where they were cut.
//  5. Where rules bound a tool's paths, the path is judged again after links were
//     followed, inside the sandbox. A redirect of Bash is judged by its words only.
//  6. An input's unknown field is an error: nothing is accepted and ignored.
//
// Imports of this module: agent and sandbox.
package tools

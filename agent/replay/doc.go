// Package replay plays a cassette in a model's place: conversations without a key
// and without a network. Every tool call is really judged and really executed.
//
// A cassette is a folder with one file a step, STEP.yaml:
//
//	cassette: 1
//	origin: written by hand        # or: recorded
//	model: none                    # what is reported as the model
//	note: why it exists            # optional
//	turns:
//	  - text: I write the module file.
//	    tools:
//	      - name: Write
//	        input: {file_path: go.mod, content: "module x\n"}
//	  - expect:                    # optional: what the request must look like
//	      tools: [Write]           # exactly these are offered
//	      last_result_contains: created
//	    text: Done.
//	    stop_reason: end_turn      # default: tool_use with tools, else end_turn
//	    usage: {input_tokens: 1}   # optional
//
// A recorded cassette (origin: recorded) has an opening, and in each turn request (a
// digest and the text that was added) and message (the answer as JSON) instead.
//
// Invariants:
//
//  1. Strict: an unknown or repeated field, a wrong type, or a turn that can never be
//     reached is an error with the file's name and line.
//  2. A request that differs from what the cassette expects, or one turn too many, is
//     an *agent.Error of class invalid that shows both sides, bounded. Nothing is
//     guessed or skipped.
//  3. A cassette is not trusted: it is text of bounded size, its calls are judged like
//     any model's, and its name cannot leave the folder.
//
// Imports of this module: agent and agent/loop.
package replay

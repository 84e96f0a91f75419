// Package redact takes secrets out of everything that is written: terminal,
// logs, records, output blobs and errors. Each occurrence becomes Mark.
//
// Words: a secret is a named value. A form is one way in which a secret may be
// written down (plain, JSON-escaped, hex, ...). A view is a normalised reading
// of the same bytes in which forms are searched (see viewKind).
//
// Forms that are found, for the value, for the value with LF and with CRLF line
// ends, and for each of its lines that has 6 bytes or more after trimming:
//
//   - plain; in any ASCII letter case (and in Unicode upper and lower case) if
//     the form has 8 bytes or more;
//   - quoted as by Go, JSON (with and without HTML escaping, "\/", \u00XX in
//     both cases, up to three levels of JSON in JSON), HTML, shell and YAML;
//   - percent-encoded: query, path, component and every byte, both hex cases;
//   - hex, both cases, also wrapped at 32 columns or more (xxd -p);
//   - base64, standard and URL alphabet, padded or not, at each of the three
//     alignments inside a longer base64 text, also wrapped at 32 columns or
//     more with LF, CRLF, or those two as escaped by JSON.
//
// Invariants:
//
//  1. Split invariance: what comes out does not depend on how the input was cut
//     into writes.
//  2. The redacted bytes are the union of all occurrences of all forms; spans
//     that overlap or touch become one Mark. No byte of an occurrence is ever
//     written, and every byte outside of the union is written unchanged.
//  3. A stream holds back only bytes that can still become part of an
//     occurrence, hence never more than the longest occurrence less one byte.
//     Everything else leaves with the write that brought it, so that a prompt
//     without a newline appears.
//  4. Time is linear in the input whatever the input is; memory does not grow
//     with the input, except for the buffer of one rewritten chunk. A chunk in
//     which nothing is found is neither copied nor costs an allocation.
//  5. A Set does not change after New and may be shared by goroutines.
//  6. No error or panic of this package holds the value of a secret.
//
// Limits, on purpose: a value of less than MinLength bytes is refused, since it
// would shred ordinary output. Any form other than the plain value is searched
// only if it has 6 bytes or more, thus a value of 4 or 5 bytes is not found in
// each base64 alignment. Of a base64 text in which a secret is embedded, the
// characters at the two edges that mix bits of the secret with bits of its
// neighbours stay (at most 4 bits of the secret each), unless the neighbour is
// the end of the text or a line feed. Encryption, compression and any other
// transformation are out of reach.
//
// The package is a leaf: it imports only the standard library; everybody may
// import it.
package redact

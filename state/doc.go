// Package state keeps runs in one directory: a SQLite database and, beside it,
// what SQLite holds badly (large contents, long logs).
//
//	<dir>/flow.db               runs, events, steps, records, checkpoints, blobs, logs, inbox
//	<dir>/locks/<run>.lock      held by the kernel for the process that owns the run
//	<dir>/packs/<name>.pack     contents of a checkpoint that are too large for a row
//	<dir>/runs/<run>/           the run's directory: sandboxes/, logs/
//
// Invariants:
//
//  1. A run is its events. The rows of steps, records and checkpoints follow from
//     them and change only in the transaction that stores the events (Append).
//  2. One Append is one transaction, durable (synchronous=FULL) when it returns.
//     Contents and logs that its events name are durable before it or in it. An
//     error means that nothing of it was stored.
//  3. A run has one owner: who holds the kernel's lock on its lock file. Each
//     Append compares the fencing token too, so that an owner which lost the lock
//     (a copied directory, a lock file deleted by hand) can store nothing.
//  4. A row moves only if it still is where the move starts; the number of rows
//     is checked. CHECK constraints repeat the law.
//  5. A run whose row says running while nobody holds its lock is interrupted,
//     for every reader, at once. A reader never takes the lock.
//  6. Nothing read back is believed unchecked: contents by SHA-256, manifests by
//     digest, log records by CRC-32C.
//  7. No absolute path is stored: a directory copied elsewhere works there.
//
// Implements engine.Journal and checkpoint.Store. Imports engine, workflow,
// checkpoint and redact of this module only.
package state

package state

import (
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// The numbered steps from an empty database to this version's: the nth file by
// name leads to PRAGMA user_version n. A released file is never edited.
//
//go:embed migrations/*.sql
var migrations embed.FS

func migrationNames() ([]string, error) { return fs.Glob(migrations, "migrations/*.sql") }

// checkVersion refuses what this program cannot read.
func checkVersion(have int, readOnly bool) error {
	names, err := migrationNames()
	if err != nil {
		return err
	}
	switch want := len(names); {
	case have > want:
		return fmt.Errorf("%w: schema %d, this program knows %d", ErrNewer, have, want)
	case have == 0 && readOnly:
		return fmt.Errorf("there are no runs here yet: %w", fs.ErrNotExist) // made, but never used
	case have < want && readOnly:
		return fmt.Errorf("the database has schema %d, this program needs %d: any command that writes (flow run, flow resume) brings it up to date", have, want)
	}
	return nil
}

// migrate brings the schema up to date, each step in a transaction of its own.
// Another process may be doing the same: the version is read again inside.
func (w *writer) migrate() error {
	names, err := migrationNames()
	if err != nil {
		return err
	}
	have, err := w.version()
	if err != nil {
		return err
	}
	if err := checkVersion(have, false); err != nil {
		return err
	}
	for have < len(names) {
		if have, err = w.migrateStep(names); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) version() (int, error) {
	row, err := w.row("PRAGMA user_version")
	if err != nil {
		return 0, err
	}
	v, ok := row[0].(int64)
	if !ok {
		return 0, fmt.Errorf("read schema version: it is %v", row[0])
	}
	return int(v), nil
}

func (w *writer) migrateStep(names []string) (_ int, err error) {
	if _, err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return 0, err
	}
	defer func() {
		if !w.conn.AutoCommit() {
			_, rerr := w.exec("ROLLBACK")
			err = errors.Join(err, rerr)
		}
	}()
	have, err := w.version()
	if err != nil || have >= len(names) {
		return have, err
	}
	text, err := migrations.ReadFile(names[have])
	if err != nil {
		return 0, err
	}
	if _, err := w.conn.Exec(string(text), nil); err != nil {
		return 0, fmt.Errorf("apply %s: %w", names[have], err)
	}
	have++
	if _, err := w.conn.Exec(fmt.Sprintf("PRAGMA user_version = %d", have), []driver.Value{}); err != nil {
		return 0, err
	}
	_, err = w.exec("COMMIT")
	return have, err
}

package report

func newTUI(cfg Config) Reporter { return newPlain(cfg) }

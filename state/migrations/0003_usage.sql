-- What an attempt took of the machine (engine.Usage), as JSON; '' when nothing was measured.
ALTER TABLE records ADD COLUMN usage TEXT;

package tools

import (
	"context"
	"encoding/json"
)

type fileInput struct {
	FilePath string `json:"file_path"`
}

// ReadFile is Read for a program instead of a model: the content as it is, without
// numbers, and whole.
func (s *Set) ReadFile(ctx context.Context, name string) (Result, error) {
	input, err := json.Marshal(fileInput{name})
	if err != nil {
		return Result{}, err
	}
	if d := s.policy.Judge("Read", input); !d.Allow {
		return Result{Text: "Permission denied: " + d.Reason, IsError: true, Denied: d.Reason}, nil
	}
	return with(func(s *Set, ctx context.Context, in fileInput) (string, error) {
		inner, err := s.resolved(ctx, "Read", in.FilePath)
		if err != nil {
			return "", err
		}
		out, err := s.sh(ctx, openScript, nil, inner)
		return string(out), err
	})(s, ctx, input)
}

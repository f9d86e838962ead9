package raydistill

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Run with the path of a model in RAYDISTILL_MODEL.
func load(t testing.TB) *Scorer {
	t.Helper()
	scorer, err := Load(os.Getenv("RAYDISTILL_MODEL"))
	if err != nil {
		t.Skip(err)
	}
	return scorer
}

var titles = []string{"Sofa, grey", "", "sofa cover grey", "oak\x00table\xff"}

func same(a, b []float32) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestGoroutinesShareAScorer(t *testing.T) {
	scorer := load(t)
	defer scorer.Close()
	expected, err := scorer.Score("grey sofa", titles)
	if err != nil || expected[0] == expected[3] {
		t.Fatal(expected, err)
	}
	var running sync.WaitGroup
	for i := 0; i < 32; i++ {
		running.Add(1)
		go func(num int) {
			defer running.Done()
			for call := 0; call < 50; call++ {
				found, err := scorer.Score("grey sofa", titles[:num])
				if err != nil || !same(found, expected[:num]) {
					t.Error(found, err)
				}
			}
		}(i % (len(titles) + 1))
	}
	running.Wait()
}

func TestAClosedScorerReturnsAnError(t *testing.T) {
	scorer := load(t)
	var running sync.WaitGroup
	for i := 0; i < 8; i++ {
		running.Add(1)
		go func() {
			defer running.Done()
			for {
				if _, err := scorer.Score("grey sofa", titles); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		}()
	}
	for i := 0; i < 2; i++ {
		if err := scorer.Close(); err != nil { // while calls run, and again
			t.Error(err)
		}
	}
	running.Wait()
	if _, err := scorer.Score("", nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestMemoryIsGivenBack(t *testing.T) {
	scorer := load(t)
	defer scorer.Close()
	kib := func() int {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Skip(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		found, _ := strconv.Atoi(strings.Fields(rest)[0])
		return found
	}
	work := func(calls int) {
		for i := 0; i < calls; i++ {
			if _, err := scorer.Score("grey sofa", titles); err != nil {
				t.Fatal(err)
			}
		}
		for i := 0; i < calls/100; i++ {
			other := load(t)
			_, _ = other.Score("grey sofa", titles)
			_ = other.Close()
		}
	}
	work(2_000)
	before := kib()
	work(100_000)
	if grown := kib() - before; grown > 8<<10 {
		t.Errorf("%d KiB more after 100,000 calls", grown)
	}
}

// Command score prints a score for each line of a file or of standard input: query TAB title.
//
//	score MODEL [PAIRS]
//	score --bench MODEL PAIRS SECONDS    times calls, prints a line of JSON
//
// In a text \t \n \r \0 \\ stand for tab, line feed, carriage return, NUL and backslash.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"raydistill"
)

const (
	batch  = 100 // titles of a query
	warmUp = 200 // calls with one title that are not counted
)

var escapes = strings.NewReplacer(`\t`, "\t", `\n`, "\n", `\r`, "\r", `\0`, "\x00", `\\`, `\`)
var allowed = strings.NewReplacer(`\t`, "", `\n`, "", `\r`, "", `\0`, "", `\\`, "")

func main() {
	args := os.Args[1:]
	isBench := len(args) > 0 && args[0] == "--bench"
	if isBench && len(args) != 4 || !isBench && (len(args) < 1 || len(args) > 2) {
		fmt.Fprintln(os.Stderr, "usage: score MODEL [PAIRS] | score --bench MODEL PAIRS SECONDS")
		os.Exit(2)
	}
	run := score
	if isBench {
		run, args = bench, args[1:]
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// eachPair calls a function with the pairs of a file, or of standard input for "".
func eachPair(name string, do func(query, title string) error) error {
	file := os.Stdin
	if name != "" {
		opened, err := os.Open(name)
		if err != nil {
			return err
		}
		defer opened.Close()
		file = opened
	}
	lines := bufio.NewReader(file)
	for number := 1; ; number++ {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		} else if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		texts := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(texts) == 1 {
			return fmt.Errorf("line %d has no tab", number)
		} else if len(texts) > 2 {
			return fmt.Errorf("line %d has more than one tab", number)
		} else if strings.Contains(allowed.Replace(line), `\`) {
			return fmt.Errorf(`line %d has a wrong escape: \t \n \r \0 and \\ are allowed`, number)
		}
		if err := do(escapes.Replace(texts[0]), escapes.Replace(texts[1])); err != nil {
			return err
		}
	}
}

func score(args []string) error {
	scorer, err := raydistill.Load(args[0])
	if err != nil {
		return err
	}
	defer scorer.Close()
	out := bufio.NewWriter(os.Stdout)
	err = eachPair(append(args, "")[1], func(query, title string) error {
		scores, err := scorer.Score(query, []string{title})
		if err == nil {
			_, err = fmt.Fprintf(out, "%.7f\n", scores[0])
		}
		return err
	})
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	return err
}

func bench(args []string) error {
	scorer, err := raydistill.Load(args[0])
	if err != nil {
		return err
	}
	defer scorer.Close()
	seconds, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	var queries, titles []string
	err = eachPair(args[1], func(query, title string) error {
		queries, titles = append(queries, query), append(titles, title)
		return nil
	})
	if err == nil && len(titles) < batch {
		err = fmt.Errorf("--bench needs %d pairs, not %d", batch, len(titles))
	}
	if err != nil {
		return err
	}
	// timed returns the sorted microseconds of calls with so many titles, during half of the time.
	timed := func(size int) (found []float64) {
		var end time.Time
		for calls, at := -warmUp/size, 0; calls < 1 || time.Now().Before(end); calls, at = calls+1, at+size {
			if at+size > len(titles) {
				at = 0
			}
			if calls == 0 {
				end = time.Now().Add(time.Duration(seconds / 2 * float64(time.Second)))
			}
			start := time.Now()
			if _, err = scorer.Score(queries[at], titles[at:at+size]); err != nil {
				return []float64{0}
			}
			if calls >= 0 {
				found = append(found, float64(time.Since(start).Nanoseconds())/1e3)
			}
		}
		sort.Float64s(found)
		return found
	}
	alone, batches := timed(1), timed(batch)
	fmt.Printf(`{"language": "go", "alone_us": %.3f, "alone_p99_us": %.3f, "batch_us": %.4f, "pairs": %d}`+"\n",
		alone[len(alone)/2], alone[len(alone)*99/100], batches[len(batches)/2]/batch,
		len(alone)+len(batches)*batch)
	return err
}

// Package raydistill scores (query, title) pairs with a model file (model.rdm) on a CPU.
//
// It is built with cgo, and with a folder that has the library and its header:
//
//	python -m raydistill.serving.native native
//	export CGO_CFLAGS="-I$PWD/native" CGO_LDFLAGS="-L$PWD/native -Wl,-rpath,$PWD/native"
package raydistill

/*
#cgo LDFLAGS: -lraydistill
#include "raydistill.h"

// Texts of one call lie in one buffer, the query first: one address to pass.
static int64_t score(const void *model, void *scratch, const char *texts, const int64_t *offsets,
                     int64_t num, float *scores) {
	return rd_score(model, scratch, texts, offsets[0], texts, offsets, num, scores);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// ErrClosed is the error of a call after Close.
var ErrClosed = errors.New("raydistill: the scorer is closed")

var reasons = map[C.int64_t]string{
	C.RD_NO_MODEL:     "no model file",
	C.RD_OTHER_FORMAT: "a model file for another version of the library",
	C.RD_CUT_SHORT:    "not complete",
	C.RD_BROKEN:       "a number in it is out of range",
}

// A Scorer is a mapped model file. Any number of goroutines may share one; at most GOMAXPROCS calls
// (its value at Load) run at once, each with its own scratch memory, and others wait.
type Scorer struct {
	model   []byte
	workers chan *worker // nil stands for one that is not made yet
	closing sync.Once
}

// A worker is the memory of one call at a time. The scratch memory is not Go's: the collector would
// clear and count all of it, and a call touches a small part.
type worker struct {
	scratch []byte
	texts   []byte
	offsets []C.int64_t
}

// Load maps a model file, the model.rdm of a bundle, and checks it; processes that score with one
// file share its memory. A file in use is replaced by a rename, not written over.
func Load(path string) (*Scorer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if about.Size() == 0 {
		return nil, fmt.Errorf("%s: %s", path, reasons[C.RD_NO_MODEL])
	}
	model, err := syscall.Mmap(int(file.Fd()), 0, int(about.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if code := C.rd_check(unsafe.Pointer(&model[0]), C.int64_t(len(model))); code != C.RD_OK {
		_ = syscall.Munmap(model)
		return nil, fmt.Errorf("%s: %s", path, reasons[code])
	}
	scorer := &Scorer{model: model, workers: make(chan *worker, runtime.GOMAXPROCS(0))}
	for len(scorer.workers) < cap(scorer.workers) {
		scorer.workers <- nil
	}
	return scorer, nil
}

// Score returns scores in 0..1 of one query's titles, in their order, by one call of C. Texts are
// UTF-8; for a student of single texts the query is "".
func (s *Scorer) Score(query string, titles []string) ([]float32, error) {
	w, isOpen := <-s.workers
	if !isOpen {
		return nil, ErrClosed
	}
	defer func() { s.workers <- w }()
	if w == nil {
		size := int(C.rd_scratch_bytes(unsafe.Pointer(&s.model[0])))
		scratch, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
			syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err != nil {
			return nil, fmt.Errorf("raydistill: scratch memory: %w", err)
		}
		w = &worker{scratch: scratch}
	}
	w.join(query, titles)
	scores := make([]float32, len(titles)+1) // one more: an address where there is no title
	code := C.score(unsafe.Pointer(&s.model[0]), unsafe.Pointer(&w.scratch[0]),
		(*C.char)(unsafe.Pointer(&w.texts[0])), &w.offsets[0], C.int64_t(len(titles)),
		(*C.float)(unsafe.Pointer(&scores[0])))
	if code != C.RD_OK {
		return nil, fmt.Errorf("raydistill: rd_score returned %d", int(code))
	}
	return scores[:len(titles):len(titles)], nil
}

// join copies all texts one after another, and a byte: an address where all are empty.
func (w *worker) join(query string, titles []string) {
	w.texts = append(w.texts[:0], query...)
	w.offsets = append(w.offsets[:0], C.int64_t(len(w.texts)))
	for _, title := range titles {
		w.texts = append(w.texts, title...)
		w.offsets = append(w.offsets, C.int64_t(len(w.texts)))
	}
	w.texts = append(w.texts, 0)
}

// Close waits for running calls and gives the memory back; later calls of Score return ErrClosed.
func (s *Scorer) Close() error {
	err := error(nil)
	s.closing.Do(func() {
		for i := 0; i < cap(s.workers); i++ {
			if w := <-s.workers; w != nil {
				_ = syscall.Munmap(w.scratch)
			}
		}
		close(s.workers)
		err = syscall.Munmap(s.model)
	})
	return err
}

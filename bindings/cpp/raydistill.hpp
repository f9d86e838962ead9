// Scores (query, title) pairs with a raydistill model file (model.rdm of a bundle) on a CPU. C++17.
//
//     raydistill::Scorer scorer("model.rdm");                    // throws raydistill::Error
//     std::vector<float> scores = scorer.score("grey sofa", {"Sofa, grey", "Sofa cover"});
//
// Threads share a scorer: each running call has its own scratch memory, which is kept for later
// calls, so there is as much as calls ever ran at once. It is moved, not copied; a scorer that was
// moved from throws. A file in use is replaced by a rename: one that is cut kills its readers.
#ifndef RAYDISTILL_HPP
#define RAYDISTILL_HPP
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "raydistill.h"

namespace raydistill {

class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Scorer {
  public:
    // Maps a model file and checks it; processes that score with one file share its memory.
    explicit Scorer(const std::string &path) : state_(std::make_unique<State>()) {
        struct stat about;
        int file = open(path.c_str(), O_RDONLY);
        if (file < 0) throw Error(path + ": " + std::strerror(errno));
        if (fstat(file, &about) == 0 && about.st_size > 0)
            state_->model = mmap(nullptr, about.st_size, PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (state_->model == MAP_FAILED) throw Error(path + ": no model file");
        state_->bytes = about.st_size;
        if (int64_t code = rd_check(state_->model, about.st_size); code != RD_OK)
            throw Error(path + ": " + reason(code));
    }

    // Scores in 0..1 of one query's titles, in their order. `titles` is any range of strings, in
    // UTF-8, with NULs if need be. For a student of single texts the query is empty.
    template <class Titles>
    std::vector<float> score(std::string_view query, const Titles &titles) const {
        if (!state_) throw Error("the scorer was moved from");
        std::unique_ptr<Worker> worker = state_->take();
        worker->texts.clear();
        worker->offsets.assign(1, 0);
        for (std::string_view title : titles) {
            worker->texts += title;
            worker->offsets.push_back(worker->texts.size());
        }
        int64_t num = worker->offsets.size() - 1;
        std::vector<float> scores(num + 1);  // one more: an address where there is no title
        const char *asked = query.data() ? query.data() : "";
        int64_t code = rd_score(state_->model, worker->scratch.get(), asked, query.size(),
                                worker->texts.data(), worker->offsets.data(), num, scores.data());
        state_->give(std::move(worker));
        if (code != RD_OK) throw Error("rd_score returned " + std::to_string(code));
        scores.pop_back();
        return scores;
    }

    std::vector<float> score(std::string_view query,
                             std::initializer_list<std::string_view> titles) const {
        return score<std::initializer_list<std::string_view>>(query, titles);
    }

  private:
    struct Free {
        void operator()(void *memory) const { std::free(memory); }
    };
    struct Worker {  // the memory of one call at a time
        std::unique_ptr<void, Free> scratch;
        std::string texts;
        std::vector<int64_t> offsets;
    };
    struct State {
        void *model = MAP_FAILED;
        size_t bytes = 0;
        std::mutex mutex;
        std::vector<std::unique_ptr<Worker>> idle;

        ~State() {
            if (model != MAP_FAILED) munmap(model, bytes);
        }
        std::unique_ptr<Worker> take() {
            std::lock_guard<std::mutex> lock(mutex);
            if (idle.empty()) {
                auto worker = std::make_unique<Worker>();
                worker->scratch.reset(std::aligned_alloc(64, rd_scratch_bytes(model)));
                if (!worker->scratch) throw std::bad_alloc();
                return worker;
            }
            std::unique_ptr<Worker> worker = std::move(idle.back());
            idle.pop_back();
            return worker;
        }
        void give(std::unique_ptr<Worker> worker) {
            std::lock_guard<std::mutex> lock(mutex);
            idle.push_back(std::move(worker));
        }
    };

    static const char *reason(int64_t code) {
        switch (code) {
        case RD_NO_MODEL: return "no model file";
        case RD_OTHER_FORMAT: return "a model file for another version of the library";
        case RD_CUT_SHORT: return "not complete";
        default: return "a number in it is out of range";
        }
    }

    std::unique_ptr<State> state_;
};

}  // namespace raydistill
#endif

// Scores pairs, as ../c/score.c: score MODEL [PAIRS] | score --bench MODEL PAIRS SECONDS
//
// Built like ../c/score.c, with c++ -std=c++17.
#include "raydistill.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

static const size_t batch = 100;  // titles of a query
static const int warm_up = 200;  // calls with one title that are not counted

static std::string unescaped(const std::string &text, long line) {
    static const std::string names = "tnr0\\", values("\t\n\r\0\\", 5);
    std::string found;
    for (size_t at = 0; at < text.size(); at++) {
        if (text[at] != '\\') {
            found += text[at];
            continue;
        }
        size_t place = ++at < text.size() ? names.find(text[at]) : std::string::npos;
        if (place == std::string::npos)
            throw raydistill::Error("line " + std::to_string(line) +
                                    " has a wrong escape: \\t \\n \\r \\0 and \\\\ are allowed");
        found += values[place];
    }
    return found;
}

template <class Function> static void each_pair(std::istream &file, Function function) {
    std::string line;
    for (long number = 1; std::getline(file, line); number++) {
        size_t tab = line.find('\t');
        if (tab == std::string::npos || line.find('\t', tab + 1) != std::string::npos)
            throw raydistill::Error("line " + std::to_string(number) + " has " +
                                    (tab == std::string::npos ? "no" : "more than one") + " tab");
        function(unescaped(line.substr(0, tab), number), unescaped(line.substr(tab + 1), number));
    }
}

static void bench(const raydistill::Scorer &scorer, std::istream &file, double seconds) {
    using Clock = std::chrono::steady_clock;
    std::vector<std::string> queries, titles;
    each_pair(file, [&](std::string query, std::string title) {
        queries.push_back(std::move(query));
        titles.push_back(std::move(title));
    });
    if (titles.size() < batch) throw raydistill::Error("--bench needs 100 pairs");
    auto timed = [&](size_t size) {  // sorted microseconds of calls, during half of the time
        std::vector<double> found;
        std::vector<std::string_view> some(size);
        Clock::time_point end;
        size_t at = 0;
        for (int call = -warm_up / int(size); call < 1 || Clock::now() < end; call++, at += size) {
            if (at + size > titles.size()) at = 0;
            if (call == 0) end = Clock::now() + std::chrono::microseconds(int64_t(seconds * 5e5));
            auto start = Clock::now();
            std::copy_n(titles.begin() + at, size, some.begin());
            scorer.score(queries[at], some);
            std::chrono::duration<double, std::micro> time = Clock::now() - start;
            if (call >= 0) found.push_back(time.count());
        }
        std::sort(found.begin(), found.end());
        return found;
    };
    std::vector<double> alone = timed(1), batches = timed(batch);
    std::printf("{\"language\": \"cpp\", \"alone_us\": %.3f, \"alone_p99_us\": %.3f, "
                "\"batch_us\": %.4f, \"pairs\": %zu}\n", alone[alone.size() / 2],
                alone[alone.size() * 99 / 100], batches[batches.size() / 2] / batch,
                alone.size() + batches.size() * batch);
}

int main(int argc, char **argv) try {
    bool is_bench = argc > 1 && argv[1] == std::string("--bench");
    if (is_bench ? argc != 5 : argc < 2 || argc > 3) {
        std::cerr << "usage: score MODEL [PAIRS] | score --bench MODEL PAIRS SECONDS\n";
        return 2;
    }
    std::ios::sync_with_stdio(false);
    raydistill::Scorer scorer(argv[1 + is_bench]);
    std::ifstream file;
    if (argc > 2) {
        file.open(argv[2 + is_bench], std::ios::binary);
        if (!file) throw raydistill::Error(argv[2 + is_bench] + std::string(": cannot be read"));
    }
    if (is_bench) {
        bench(scorer, file, std::stod(argv[4]));
        return 0;
    }
    each_pair(argc > 2 ? file : std::cin, [&](const std::string &query, const std::string &title) {
        std::printf("%.7f\n", scorer.score(query, {title})[0]);
    });
    if (std::fflush(stdout) != 0) throw raydistill::Error("standard output cannot be written");
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
}

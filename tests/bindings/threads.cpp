// Threads that share a scorer of bindings/cpp, one that is moved, and one after its move:
// threads MODEL.
#include "raydistill.hpp"

#include <atomic>
#include <cstdio>
#include <thread>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    raydistill::Scorer first(argv[1]);
    raydistill::Scorer scorer(std::move(first));
    const std::vector<std::string> titles = {"Sofa, grey", "", std::string("oak\0table\xff", 10)};
    const std::vector<float> expected = scorer.score("grey sofa", titles);
    std::atomic<int> wrong{expected[0] == expected[2]};
    wrong += !scorer.score({}, std::vector<std::string>()).empty();
    wrong += scorer.score("grey sofa", {"Sofa, grey"})[0] != expected[0];
    try {
        first.score("grey sofa", titles);
        wrong++;
    } catch (const raydistill::Error &error) {
    }
    std::vector<std::thread> threads;
    for (int at = 0; at < 4; at++)
        threads.emplace_back([&] {
            for (int call = 0; call < 25000; call++)
                wrong += scorer.score("grey sofa", titles) != expected;
        });
    for (std::thread &thread : threads) thread.join();
    std::printf("100,000 calls, %d wrong\n", wrong.load());
    return wrong > 0;
}

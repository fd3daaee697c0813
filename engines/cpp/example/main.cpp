// similarity ARTIFACT A.jpg B.jpg: how alike two images are, as the cosine of their embeddings.
#include <reidruntime/reidruntime.hpp>

#include <cmath>
#include <iostream>
#include <numeric>
#include <span>
#include <string>
#include <vector>

double dot(std::span<const float> a, std::span<const float> b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "Usage: similarity ARTIFACT A.jpg B.jpg\n";
        return 2;
    }
    try {
        const reidruntime::Session session(argv[1]);
        const reidruntime::Features features = session.embed(std::vector<std::string>{argv[2], argv[3]});
        const auto a = features[0], b = features[1];
        std::cout << dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)) << '\n';
    } catch (const reidruntime::Error& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
}

// Runs the ncnn artifact of a bundle on raw float32 tensors, without Python.
//
// It trusts the two model files: check the bundle first (boardfit verify), then write them out (boardfit unpack).
// Exit status: 0 all outputs are written, 1 something is wrong with a file or in ncnn, 2 with the command line.
#include <net.h>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

const char* const usage =
    "usage: boardfit-ncnn PARAM BIN --input NAME SHAPE FILE --output NAME FILE [--threads N] [--fp16]\n"
    "  --input   an input of the net, its shape without the batch (3x224x224), its raw float32 numbers;\n"
    "            once for each input\n"
    "  --output  an output, and the file that takes its raw float32 numbers; once for each that is wanted\n"
    "  --threads how many threads ncnn uses (1)\n"
    "  --fp16    let ncnn compute in half precision, as boardfit does with fp16 artifacts only\n"
    "  --version the ncnn that is inside\n";

struct Usage : std::runtime_error {  // of the command line
    using std::runtime_error::runtime_error;
};

struct Input {
    std::string name;
    std::vector<int> shape;
    std::string path;
};

struct Output {
    std::string name;
    std::string path;
};

struct Job {
    std::vector<std::string> model;  // paths of the .param and the .bin
    std::vector<Input> inputs;
    std::vector<Output> outputs;
    int threads = 1;
    bool fp16 = false;
};

int positive(const std::string& text, const std::string& what)
{
    int number = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stop != end || number < 1)
        throw Usage(what + " is '" + text + "': expected a whole number from 1 on");
    return number;
}

std::vector<int> parse_shape(const std::string& text)
{
    std::vector<int> shape;
    std::int64_t numbers = 1;
    std::istringstream words(text + 'x');
    for (std::string word; std::getline(words, word, 'x');) {
        shape.push_back(positive(word, "an extent of the shape '" + text + "'"));
        numbers *= shape.back();
        if (shape.size() > 4 || numbers > 1 << 28)
            throw Usage("the shape '" + text + "' has more than 4 extents, or more than 2^28 numbers");
    }
    return shape;
}

Job parse(const std::vector<std::string>& words)
{
    Job job;
    auto word = words.begin();
    const auto next = [&](const std::string& option) {
        if (word == words.end()) throw Usage(option + " lacks an argument");
        return *word++;
    };
    while (word != words.end()) {
        const std::string option = *word++;
        if (option == "--input") {
            const std::string name = next(option), shape = next(option);
            job.inputs.push_back({name, parse_shape(shape), next(option)});
        } else if (option == "--output") {
            const std::string name = next(option);
            job.outputs.push_back({name, next(option)});
        } else if (option == "--threads") {
            job.threads = positive(next(option), option);
        } else if (option == "--fp16") {
            job.fp16 = true;
        } else if (option.rfind("--", 0) == 0) {
            throw Usage("there is no option " + option);
        } else {
            job.model.push_back(option);
        }
    }
    if (job.model.size() != 2) throw Usage("expected two model files, PARAM and BIN");
    if (job.inputs.empty() || job.outputs.empty()) throw Usage("expected --input and --output");
    return job;
}

std::string read(const std::string& path)
{
    std::ifstream file(path, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file.is_open() || file.bad() || std::filesystem::is_directory(path))
        throw std::runtime_error("cannot read " + path);
    return bytes;
}

// ncnn multiplies whatever it is given: other channels than the first convolution's would be read past its weights.
void check_channels(const std::string& param, const Input& input)
{
    std::set<std::string> same = {input.name};  // blobs with the input's channels
    std::istringstream lines(param);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string kind, name, bottom, blob;
        int bottoms = 0, tops = 0;
        if (!(words >> kind >> name >> bottoms >> tops >> bottom) || bottoms != 1 || !same.count(bottom)) continue;
        int values[20] = {};  // 0 outputs, 1 and 11 width and height of the kernel, 6 weights, 7 groups
        for (int i = 0; i < tops && words >> blob; ++i)
            if (kind == "Split" || kind == "Padding") same.insert(blob);
        for (std::string pair; words >> pair;) {
            int key = -1, value = 0;
            if (std::sscanf(pair.c_str(), "%d=%d", &key, &value) == 2 && key >= 0 && key < 20) values[key] = value;
        }
        const std::int64_t groups = kind == "ConvolutionDepthWise" ? std::max(values[7], 1) : 1;
        const std::int64_t kernel = std::int64_t{values[1]} * (values[11] ? values[11] : values[1]) * values[0];
        if (kind.rfind("Convolution", 0) != 0 || input.shape.size() != 3 || kernel < 1 || !values[6]) continue;
        const std::int64_t channels = values[6] * groups / kernel;
        if (channels != input.shape[0])
            throw std::runtime_error("the layer " + name + " wants " + std::to_string(channels) + " channels, " +
                                     input.name + " has " + std::to_string(input.shape[0]));
    }
}

void load(ncnn::Net& net, const Job& job)
{
    net.opt.num_threads = job.threads;
    // ncnn's half precision costs three digits where the processor has it (see runtime/engines/ncnn.py).
    if (!job.fp16)
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic =
            net.opt.use_bf16_storage = false;
    const std::string param = read(job.model[0]);
    if (param.rfind("7767517", 0) != 0 || net.load_param_mem(param.c_str()) != 0)
        throw std::runtime_error("ncnn refused " + job.model[0] + ": it is no .param, or has a layer that this "
                                 "program was built without");
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> weights(std::fopen(job.model[1].c_str(), "rb"), std::fclose);
    if (!weights) throw std::runtime_error("cannot read " + job.model[1]);
    if (net.load_model(weights.get()) != 0 || std::fgetc(weights.get()) != EOF)
        throw std::runtime_error(job.model[1] + " does not belong to " + job.model[0] + ", or is damaged");
    for (const Input& input : job.inputs) check_channels(param, input);
}

ncnn::Mat read_tensor(const Input& input)
{
    std::string bytes = read(input.path);
    std::size_t wanted = sizeof(float);
    for (const int extent : input.shape) wanted *= static_cast<std::size_t>(extent);
    if (bytes.size() != wanted)
        throw std::runtime_error(input.path + " has " + std::to_string(bytes.size()) + " bytes: the shape of " +
                                 input.name + " takes " + std::to_string(wanted));
    const ncnn::Mat flat(static_cast<int>(wanted / sizeof(float)), static_cast<void*>(bytes.data()));
    const std::vector<int>& n = input.shape;
    // A copy: ncnn wants its own alignment, and a first layer may work in place.
    switch (n.size()) {
    case 1: return flat.clone();
    case 2: return flat.reshape(n[1], n[0]).clone();
    case 3: return flat.reshape(n[2], n[1], n[0]).clone();
    default: return flat.reshape(n[3], n[2], n[1], n[0]).clone();
    }
}

template <typename Names>
std::string listed(const Names& names)
{
    std::string all;
    for (const char* name : names) all += std::string(all.empty() ? "" : ", ") + name;
    return all;
}

void check_names(const ncnn::Net& net, const Job& job)
{
    std::set<std::string> missing(net.input_names().begin(), net.input_names().end()), blobs;
    for (const ncnn::Blob& blob : net.blobs()) blobs.insert(blob.name);
    for (const Input& input : job.inputs)
        if (!missing.erase(input.name))
            throw std::runtime_error("no input is called " + input.name + " (or twice): the net has " +
                                     listed(net.input_names()));
    if (!missing.empty()) throw std::runtime_error("the net wants the input " + *missing.begin() + " too");
    for (const Output& output : job.outputs)
        if (!blobs.count(output.name))
            throw std::runtime_error("no output is called " + output.name + ": the net has " +
                                     listed(net.output_names()));
}

// A reader of the path sees the old file or the whole new one.
void write_whole(const std::string& path, const ncnn::Mat& flat)
{
    if (std::filesystem::exists(path) && !std::filesystem::is_regular_file(path))
        throw std::runtime_error(path + " is no plain file: choose another output");
    const std::string part = path + ".part";
    std::ofstream file(part, std::ios::binary);
    file.write(static_cast<const char*>(flat.data), static_cast<std::streamsize>(flat.w * sizeof(float)));
    file.close();
    std::error_code error;
    if (file) std::filesystem::rename(part, path, error);
    if (file && !error) return;
    std::filesystem::remove(part, error);
    throw std::runtime_error("cannot write " + path);
}

void run(const Job& job)
{
    ncnn::Net net;
    load(net, job);
    check_names(net, job);
    ncnn::Extractor extractor = net.create_extractor();
    for (const Input& input : job.inputs) extractor.input(input.name.c_str(), read_tensor(input));
    std::vector<ncnn::Mat> found(job.outputs.size());
    for (std::size_t i = 0; i < found.size(); ++i)
        if (extractor.extract(job.outputs[i].name.c_str(), found[i]) != 0 || found[i].empty())
            throw std::runtime_error("ncnn could not make " + job.outputs[i].name + ": do the shapes fit the net?");
    for (std::size_t i = 0; i < found.size(); ++i) {
        const ncnn::Mat flat = found[i].reshape(found[i].w * found[i].h * found[i].d * found[i].c);
        write_whole(job.outputs[i].path, flat);
        std::cout << job.outputs[i].name << ": " << flat.w << " float32 in " << job.outputs[i].path << "\n";
    }
}

}  // namespace

int main(int argc, char** argv)
{
    const std::vector<std::string> words(argv + 1, argv + argc);
    try {
        if (words == std::vector<std::string>{"--help"}) return std::cout << usage, 0;
        if (words == std::vector<std::string>{"--version"}) return std::cout << "ncnn " << ncnn_version() << "\n", 0;
        run(parse(words));
        return 0;
    } catch (const Usage& error) {
        std::cerr << "boardfit-ncnn: " << error.what() << " (--help says more)\n";
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "boardfit-ncnn: " << error.what() << "\n";
        return 1;
    }
}

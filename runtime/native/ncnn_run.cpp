// Runs the ncnn artifact of a bundle on raw float32 tensors, without Python.
//
// It trusts the two model files: check the bundle (boardfit verify), then write them out (boardfit unpack).
// Exit status: 0 all outputs are written, 1 something is wrong with a file or in ncnn, 2 with the command line.
#include <net.h>

#include <algorithm>
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
    "ncnn " NCNN_VERSION_STRING "\n";

struct Usage : std::runtime_error {  // of the command line
    using std::runtime_error::runtime_error;
};

using Fault = std::runtime_error;

struct Tensor {
    std::string name;
    std::vector<int> shape;  // of an input, without the batch
    std::string path;
};

struct Job {
    std::vector<std::string> model;  // paths of the .param and the .bin
    std::vector<Tensor> inputs, outputs;
    int threads = 1;
    bool fp16 = false;
};

int positive(const std::string& text, const std::string& what)
{
    int number = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc() && stop == end && number > 0) return number;
    throw Usage(what + " is '" + text + "': expected a whole number from 1 on");
}

std::vector<int> parse_shape(const std::string& text)
{
    std::vector<int> shape;
    std::int64_t numbers = 1;
    std::istringstream words(text + 'x');
    for (std::string word; std::getline(words, word, 'x');) {
        shape.push_back(positive(word, "an extent of the shape '" + text + "'"));
        numbers *= shape.back();
        if (shape.size() > 4 || numbers > 1 << 28) throw Usage("'" + text + "' has over 4 extents, or 2^28 numbers");
    }
    return shape;
}

Job parse(const std::vector<std::string>& words)
{
    Job job;
    auto word = words.begin();
    while (word != words.end()) {
        const std::string option = *word++;
        const auto next = [&] { return word != words.end() ? *word++ : throw Usage(option + " lacks an argument"); };
        if (option == "--input") {
            const std::string name = next(), shape = next();
            job.inputs.push_back({name, parse_shape(shape), next()});
        } else if (option == "--output") {
            const std::string name = next();
            job.outputs.push_back({name, {}, next()});
        } else if (option == "--threads") {
            job.threads = positive(next(), option);
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
    if (!file.is_open() || std::filesystem::is_directory(path)) throw Fault("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// ncnn multiplies whatever it is given: with more channels than it has weights for it reads past them.
void check_channels(const std::string& param, const Tensor& input)
{
    std::istringstream lines(param);
    for (std::string line, kind, name, bottoms, tops, bottom, pair; std::getline(lines, line);) {
        std::istringstream words(line);
        words >> kind >> name >> bottoms >> tops >> bottom;
        if (kind != "Convolution" || bottom != input.name || input.shape.size() != 3) continue;
        std::int64_t values[20] = {};  // 0 outputs, 1 and 11 width and height of the kernel, 6 weights
        for (int key, value; words >> pair;)
            if (std::sscanf(pair.c_str(), "%d=%d", &key, &value) == 2 && key >= 0 && key < 20) values[key] = value;
        const std::int64_t kernel = values[0] * values[1] * (values[11] ? values[11] : values[1]);
        if (kernel > 0 && values[6] != kernel * input.shape[0])
            throw Fault("the layer " + name + " wants " + std::to_string(values[6] / kernel) + " channels: " +
                        input.name + " has " + std::to_string(input.shape[0]));
    }
}

void load(ncnn::Net& net, const Job& job)
{
    net.opt.num_threads = job.threads;
    // ncnn's half precision costs three digits where the processor has it (see runtime/engines/ncnn.py).
    if (!job.fp16)
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage =
            false;
    const std::string param = read(job.model[0]);
    if (param.rfind("7767517", 0) != 0 || net.load_param_mem(param.c_str()) != 0)
        throw Fault("ncnn refused " + job.model[0] + ": it is damaged, or has a layer that was left out here");
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> bin(std::fopen(job.model[1].c_str(), "rb"), std::fclose);
    if (!bin) throw Fault("cannot read " + job.model[1]);
    if (net.load_model(bin.get()) != 0 || std::fgetc(bin.get()) != EOF)
        throw Fault(job.model[1] + " does not belong to " + job.model[0] + ", or is damaged");
    std::set<std::string> missing(net.input_names().begin(), net.input_names().end());
    for (const Tensor& input : job.inputs) {
        if (!missing.erase(input.name)) throw Fault("the net has no input " + input.name + ", or it is given twice");
        check_channels(param, input);
    }
    if (!missing.empty()) throw Fault("the net wants the input " + *missing.begin());
    for (const Tensor& output : job.outputs)
        if (std::none_of(net.blobs().begin(), net.blobs().end(), [&](auto& blob) { return blob.name == output.name; }))
            throw Fault("the net has no output " + output.name);
}

ncnn::Mat read_tensor(const Tensor& input)
{
    std::string bytes = read(input.path);
    std::vector<int> n = input.shape;
    std::size_t wanted = sizeof(float);
    for (const int extent : n) wanted *= static_cast<std::size_t>(extent);
    if (bytes.size() != wanted)
        throw Fault(input.path + " has " + std::to_string(bytes.size()) + " bytes: the shape of " + input.name +
                    " takes " + std::to_string(wanted));
    const ncnn::Mat flat(static_cast<int>(wanted / sizeof(float)), static_cast<void*>(bytes.data()));
    // A copy: ncnn wants its own alignment, and a first layer may work in place.
    if (n.size() == 1) return flat.clone();
    if (n.size() == 2) return flat.reshape(n[1], n[0]).clone();
    if (n.size() == 3) return flat.reshape(n[2], n[1], n[0]).clone();
    return flat.reshape(n[3], n[2], n[1], n[0]).clone();
}

// Who reads the path sees the old file or the whole new one.
void write_whole(const std::string& path, const ncnn::Mat& flat)
{
    if (std::filesystem::exists(path) && !std::filesystem::is_regular_file(path)) throw Fault(path + " is no file");
    const std::string part = path + ".part";
    std::ofstream file(part, std::ios::binary);
    file.write(static_cast<const char*>(flat.data), static_cast<std::streamsize>(flat.w * sizeof(float)));
    file.close();
    std::error_code error;
    if (file) std::filesystem::rename(part, path, error);
    if (file && !error) return;
    std::filesystem::remove(part, error);
    throw Fault("cannot write " + path);
}

void run(const Job& job)
{
    ncnn::Net net;
    load(net, job);
    ncnn::Extractor extractor = net.create_extractor();
    for (const Tensor& input : job.inputs) extractor.input(input.name.c_str(), read_tensor(input));
    std::vector<ncnn::Mat> found(job.outputs.size());
    for (std::size_t i = 0; i < found.size(); ++i)
        if (extractor.extract(job.outputs[i].name.c_str(), found[i]) != 0 || found[i].empty())
            throw Fault("ncnn could not make " + job.outputs[i].name + ": do the shapes fit the net?");
    for (std::size_t i = 0; i < found.size(); ++i) {
        const ncnn::Mat flat = found[i].reshape(found[i].w * found[i].h * found[i].d * found[i].c);
        write_whole(job.outputs[i].path, flat);
        std::cout << job.outputs[i].name << ": " << flat.w << " numbers in " << job.outputs[i].path << "\n";
    }
}

}  // namespace

int main(int argc, char** argv)
{
    const std::vector<std::string> words(argv + 1, argv + argc);
    try {
        if (words == std::vector<std::string>{"--help"}) return std::cout << usage, 0;
        return run(parse(words)), 0;
    } catch (const Usage& error) {
        std::cerr << "boardfit-ncnn: " << error.what() << " (--help says more)\n";
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "boardfit-ncnn: " << error.what() << "\n";
        return 1;
    }
}

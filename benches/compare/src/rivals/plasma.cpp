// Plasma's side of the comparison: its own C++ client, which takes one command a line and answers each with one line.
//
//   plasma-side STORE DIRECTORY BYTES    a store is started from the program STORE, its sockets lie in DIRECTORY
//   plasma-side reader SOCKET            the other process: gets what the first has put
//
// Answers are "ok SECONDS", "error TEXT" (Plasma failed), or "wrong TEXT" (a result is not what was put).

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <plasma/client.h>

using Clock = std::chrono::steady_clock;
using plasma::ObjectBuffer;
using plasma::ObjectID;
using plasma::PlasmaClient;

namespace {

// A result that is not what was put.
struct Wrong : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void must(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> figures) {
  if (figures.empty()) throw std::runtime_error("nothing was measured");
  std::nth_element(figures.begin(), figures.begin() + figures.size() / 2, figures.end());
  return figures[figures.size() / 2];
}

// Both processes know the ids from the number alone.
ObjectID id_of(uint64_t number) {
  std::string bytes(20, '\0');
  std::memcpy(&bytes[0], &number, sizeof number);
  // Plasma's tables hash some of the bytes only, so that all of them should differ.
  for (int at = 8; at < 20; ++at) bytes[at] = static_cast<char>((number * 0x9e3779b97f4a7c15ull) >> (at % 8 * 8));
  return ObjectID::from_binary(bytes);
}

void put(PlasmaClient& client, uint64_t number, const std::vector<uint8_t>& value) {
  ObjectID id = id_of(number);
  std::shared_ptr<arrow::Buffer> buffer;
  must(client.Create(id, value.size(), nullptr, 0, &buffer));
  std::memcpy(buffer->mutable_data(), value.data(), value.size());
  must(client.Seal(id));
  must(client.Release(id));
}

uint64_t sum(const uint8_t* bytes, size_t length) {
  uint64_t total = 0;
  const uint64_t* words = reinterpret_cast<const uint64_t*>(bytes);
  for (size_t at = 0; at < length / 8; ++at) total += words[at];
  return total;
}

ObjectBuffer get(PlasmaClient& client, uint64_t number) {
  std::vector<ObjectBuffer> found;
  must(client.Get({id_of(number)}, 1000, &found));
  if (!found[0].data) throw std::runtime_error("the store does not find an object");
  return found[0];
}

std::vector<uint8_t> pattern(size_t bytes) {
  std::vector<uint8_t> value(bytes);
  for (size_t at = 0; at < bytes; ++at) value[at] = static_cast<uint8_t>(at % 251 ^ at >> 12);
  return value;
}

void check(const ObjectBuffer& object, const std::vector<uint8_t>& value) {
  const uint8_t* data = object.data->data();
  if (object.data->size() != static_cast<int64_t>(value.size()) || data[0] != value.front() ||
      data[value.size() - 1] != value.back()) {
    throw Wrong("plasma gives other bytes than were put");
  }
}

// A child of this program's that ends with it.
struct Child {
  pid_t pid = -1;
  FILE* to = nullptr;
  FILE* from = nullptr;

  explicit Child(const std::vector<std::string>& words, bool talks) {
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    if (talks && (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)) throw std::runtime_error("no pipe");
    pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (talks) {
        dup2(in[0], 0);
        dup2(out[1], 1);
      } else {
        // The harness would not understand the output of a store.
        dup2(2, 1);
      }
      std::vector<char*> arguments;
      for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
      arguments.push_back(nullptr);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
    if (pid < 0) throw std::runtime_error("no process");
    if (talks) {
      close(in[0]);
      close(out[1]);
      to = fdopen(in[1], "w");
      from = fdopen(out[0], "r");
    }
  }

  std::string ask(const std::string& command) {
    std::fprintf(to, "%s\n", command.c_str());
    std::fflush(to);
    char line[4096];
    if (!std::fgets(line, sizeof line, from)) throw std::runtime_error("the reader has gone");
    std::string answer(line);
    if (answer.rfind("wrong", 0) == 0) throw Wrong(answer.substr(6));
    if (answer.rfind("ok ", 0) != 0) throw std::runtime_error(answer);
    return answer.substr(3);
  }

  ~Child() {
    if (to) std::fclose(to);
    if (from) std::fclose(from);
    if (pid > 0) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }
};

// A store and this process as its client.
struct Store {
  std::string socket;
  Child process;
  std::unique_ptr<PlasmaClient> client;

  Store(const std::string& program, const std::string& socket_path, const std::string& bytes)
      : socket(socket_path), process({program, "-m", bytes, "-s", socket_path}, false) {
    // Looked for, rather than left to the client, whose own retries are 100 ms apart.
    for (int tries = 0; access(socket.c_str(), F_OK) != 0; ++tries) {
      if (tries > 5000) throw std::runtime_error("the store does not start");
      usleep(1000);
    }
    client = std::make_unique<PlasmaClient>();
    must(client->Connect(socket, "", 0, 50));
  }

  ~Store() {
    if (client) (void)client->Disconnect();
    unlink(socket.c_str());
  }
};

struct Side {
  std::string program, directory, bytes, self;
  std::unique_ptr<Store> store;
  std::unique_ptr<Child> reader;
  uint64_t next = 1;
  int stores = 0;
  std::vector<uint8_t> large;

  std::unique_ptr<Store> fresh_store() {
    return std::make_unique<Store>(program, directory + "/plasma-" + std::to_string(stores++), bytes);
  }

  PlasmaClient& client() {
    if (!store) {
      store = fresh_store();
      // The first object has the client map the store's memory.
      for (int at = 0; at < 100; ++at) put(*store->client, next++, pattern(8));
    }
    return *store->client;
  }

  Child& other() {
    client();
    if (!reader) reader = std::make_unique<Child>(std::vector<std::string>{self, "reader", store->socket}, true);
    return *reader;
  }

  const std::vector<uint8_t>& source(size_t length) {
    if (large.size() != length) large = pattern(length);
    return large;
  }

  double run(const std::string& work, size_t length, double budget) {
    Clock::time_point start = Clock::now();
    std::vector<double> figures;
    if (work == "put") {
      std::vector<uint8_t> value = pattern(length);
      while (seconds_since(start) < budget) {
        Clock::time_point began = Clock::now();
        for (int at = 0; at < 100; ++at) put(client(), next++, value);
        figures.push_back(seconds_since(began) / 100);
      }
      check(get(client(), next - 1), value);
    } else if (work == "get-first") {
      std::vector<uint8_t> value = pattern(length);
      other();
      while (seconds_since(start) < budget) {
        uint64_t first = next;
        for (int at = 0; at < 1000; ++at) put(client(), next++, value);
        std::ostringstream command;
        command << "get-first " << first << " 1000 " << length;
        figures.push_back(std::stod(other().ask(command.str())));
      }
    } else if (work == "get-held") {
      put(client(), next++, pattern(length));
      std::ostringstream command;
      command << "get-held " << next - 1 << " " << length << " " << budget;
      return std::stod(other().ask(command.str()));
    } else if (work == "put-large") {
      const std::vector<uint8_t>& value = source(length);
      // The first of them touch memory that nobody has touched before.
      if (!warm) {
        for (int at = 0; at < 8; ++at) put(client(), next++, value);
        warm = true;
      }
      // As Mobula's rounds do.
      put(client(), next++, value);
      do {
        Clock::time_point began = Clock::now();
        put(client(), next++, value);
        figures.push_back(seconds_since(began));
      } while (seconds_since(start) < budget);
      check(get(client(), next - 1), value);
    } else if (work == "put-large-first") {
      const std::vector<uint8_t>& value = source(length);
      std::unique_ptr<Store> fresh = fresh_store();
      Clock::time_point began = Clock::now();
      put(*fresh->client, 1, value);
      figures.push_back(seconds_since(began));
      check(get(*fresh->client, 1), value);
    } else if (work == "read-large-first") {
      const std::vector<uint8_t>& value = source(length);
      put(client(), next++, value);
      // A reader of its own, whose mapping of the store's memory is part of what is measured.
      Child fresh({self, "reader", store->socket}, true);
      put(client(), next++, pattern(8));
      std::ostringstream command;
      command << "read " << next - 2 << " " << sum(value.data(), value.size());
      figures.push_back(std::stod(fresh.ask(command.str())));
    } else {
      throw std::runtime_error("no such work");
    }
    return median(figures);
  }

  bool warm = false;
};

double read_command(PlasmaClient& client, std::istringstream& words) {
  std::string work;
  words >> work;
  std::vector<double> figures;
  if (work == "get-first") {
    uint64_t first, count;
    size_t length;
    words >> first >> count >> length;
    std::vector<uint8_t> value = pattern(length);
    Clock::time_point began = Clock::now();
    for (uint64_t number = first; number < first + count; ++number) {
      check(get(client, number), value);  // dropping the buffer releases the object
    }
    return seconds_since(began) / count;
  }
  if (work == "get-held") {
    uint64_t number;
    size_t length;
    double budget;
    words >> number >> length >> budget;
    std::vector<uint8_t> value = pattern(length);
    ObjectBuffer held = get(client, number);
    Clock::time_point start = Clock::now();
    while (seconds_since(start) < budget) {
      Clock::time_point began = Clock::now();
      for (int at = 0; at < 1000; ++at) check(get(client, number), value);
      figures.push_back(seconds_since(began) / 1000);
    }
    return median(figures);
  }
  if (work == "read") {
    uint64_t number, expected;
    words >> number >> expected;
    Clock::time_point began = Clock::now();
    ObjectBuffer object = get(client, number);
    uint64_t total = sum(object.data->data(), object.data->size());
    double taken = seconds_since(began);
    if (total != expected) throw Wrong("plasma's reader sums other bytes than were put");
    return taken;
  }
  throw std::runtime_error("no such work");
}

template <typename F>
void serve(F run) {
  for (std::string line; std::getline(std::cin, line);) {
    std::ostringstream answer;
    answer.precision(17);
    try {
      answer << "ok " << run(line);
    } catch (const Wrong& wrong) {
      answer << "wrong " << wrong.what();
    } catch (const std::exception& error) {
      std::string text = error.what();
      std::replace(text.begin(), text.end(), '\n', ' ');
      answer << "error " << text;
    }
    std::cout << answer.str() << std::endl;
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 3 && std::string(arguments[1]) == "reader") {
    PlasmaClient client;
    arrow::Status connected = client.Connect(arguments[2], "", 0, 50);
    serve([&](const std::string& line) {
      must(connected);
      std::istringstream words(line);
      return read_command(client, words);
    });
    return 0;
  }
  if (count != 4) return 2;
  Side side;
  side.program = arguments[1];
  side.directory = arguments[2];
  side.bytes = arguments[3];
  side.self = "/proc/self/exe";
  serve([&](const std::string& line) {
    std::istringstream words(line);
    std::string work;
    size_t length = 0;
    double budget_ms = 0;
    words >> work;
    if (work == "rest") return 0.0;
    words >> length >> budget_ms;
    return side.run(work, length, budget_ms / 1000);
  });
  return 0;
}

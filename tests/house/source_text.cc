#include "tests/house/source_text.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

namespace thermocline::test {
namespace {

namespace fs = std::filesystem;

SourceFile load(const fs::path& root, const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  SourceFile file{fs::relative(path, root).string(), text.str(), {}};
  std::istringstream lines(file.text);
  for (std::string line; std::getline(lines, line);) file.lines.push_back(line);
  return file;
}

bool skipped_folder(const fs::path& path) {
  const std::string name = path.filename().string();
  return name == ".git" || name.starts_with("build") || name == "results" || name == "__pycache__";
}

template <class Keep>
std::vector<SourceFile> files_where(Keep keep) {
  const fs::path root = THERMOCLINE_SOURCE_DIR;
  std::vector<SourceFile> files;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::end(it); ++it) {
    if (it->is_directory() && skipped_folder(it->path())) it.disable_recursion_pending();
    if (it->is_regular_file() && keep(it->path())) files.push_back(load(root, it->path()));
  }
  std::sort(files.begin(), files.end(),
            [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return files;
}

// What lies between two characters of a literal or comment becomes spaces.
void blank(std::string& text, size_t begin, size_t end) {
  for (size_t i = begin; i < std::min(end, text.size()); ++i) {
    if (text[i] != '\n') text[i] = ' ';
  }
}

size_t end_of_quoted(const std::string& text, size_t begin) {
  const char quote = text[begin];
  size_t i = begin + 1;
  while (i < text.size() && text[i] != quote && text[i] != '\n') i += text[i] == '\\' ? 2 : 1;
  return i;
}

size_t end_of_raw(const std::string& text, size_t quote) {
  const size_t open = text.find('(', quote);
  const std::string close = ")" + text.substr(quote + 1, open - quote - 1) + "\"";
  const size_t end = text.find(close, open);
  return end == std::string::npos ? text.size() : end + close.size() - 1;
}

bool digit_separator(const std::string& text, size_t i) {
  return text[i] == '\'' && i > 0 && std::isxdigit(static_cast<unsigned char>(text[i - 1])) != 0 &&
         i + 1 < text.size() && std::isxdigit(static_cast<unsigned char>(text[i + 1])) != 0;
}

bool opens_scope(const std::string& statement) {
  static const std::regex scope(R"(^\s*(template\s*<.*>\s*)?(inline\s+)?)"
                                R"((namespace|class|struct|enum|union|extern)\b)");
  return std::regex_search(statement, scope);
}

}  // namespace

std::vector<SourceFile> source_files() {
  return files_where([](const fs::path& path) {
    const std::string kind = path.extension().string();
    return kind == ".h" || kind == ".cc" || kind == ".cu";
  });
}

std::vector<SourceFile> text_files() {
  return files_where([](const fs::path& path) {
    const std::string kind = path.extension().string();
    return kind != ".npy" && kind != ".npz" && kind != ".gguf" && kind != ".bin" &&
           path.filename() != ".git";
  });
}

std::string without_comments_and_literals(const std::string& text) {
  std::string out = text;
  for (size_t i = 0; i < text.size(); ++i) {
    size_t end = i;
    if (text.compare(i, 2, "//") == 0) {
      end = std::min(text.find('\n', i), text.size());
      blank(out, i, end);
    } else if (text.compare(i, 2, "/*") == 0) {
      end = std::min(text.find("*/", i), text.size()) + 1;
      blank(out, i, end + 1);
    } else if (text.compare(i, 2, "R\"") == 0) {
      end = end_of_raw(text, i + 1);
      blank(out, i + 2, end);
    } else if (text[i] == '"' || (text[i] == '\'' && !digit_separator(text, i))) {
      end = end_of_quoted(text, i);
      blank(out, i + 1, end);
    }
    i = end;
  }
  return out;
}

std::vector<FunctionSpan> functions_of(const SourceFile& file) {
  const std::string text = without_comments_and_literals(file.text);
  std::vector<FunctionSpan> functions;
  std::string statement;  // since the last ; { or }
  int statement_line = 1, line = 1, function_begin = 0;
  int scope_depth = 0, body_depth = 0;  // open braces outside and inside a function
  for (const char c : text) {
    if (c == '\n') ++line;
    if (body_depth > 0) {
      body_depth += c == '{' ? 1 : c == '}' ? -1 : 0;
      if (body_depth == 0) functions.push_back({function_begin, line - function_begin + 1});
    } else if (c == '{') {
      if (opens_scope(statement) || statement.find('(') == std::string::npos) {
        ++scope_depth;
      } else {
        function_begin = statement_line;
        body_depth = 1;
      }
      statement.clear();
    } else if (c == '}' || c == ';') {
      scope_depth -= c == '}';
      statement.clear();
    } else if (!statement.empty() || std::isspace(static_cast<unsigned char>(c)) == 0) {
      if (statement.empty()) statement_line = line;
      statement += c == '\n' ? ' ' : c;
    }
  }
  return functions;
}

std::vector<std::string> includes_of(const SourceFile& file) {
  static const std::regex include(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"])");
  std::vector<std::string> names;
  for (const std::string& line : file.lines) {
    std::smatch match;
    if (std::regex_search(line, match, include)) names.push_back(match[1]);
  }
  return names;
}

}  // namespace thermocline::test

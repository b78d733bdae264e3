// Source files as text, for the tests that hold the project to its own rules.
#pragma once

#include <string>
#include <vector>

namespace thermocline::test {

struct SourceFile {
  std::string path;  // relative to the project's root
  std::string text;
  std::vector<std::string> lines;
};

// Every .h, .cc and .cu of the project's folders, in order of path.
std::vector<SourceFile> source_files();
// The files that git tracks or would track, whatever their kind (no build folders).
std::vector<SourceFile> text_files();

// The text with comments and the insides of literals blanked, line breaks kept.
std::string without_comments_and_literals(const std::string& text);

struct FunctionSpan {
  int line_begin;  // from 1, where its statement begins
  int line_count;
};
// Function definitions at namespace or class scope.
std::vector<FunctionSpan> functions_of(const SourceFile& file);

// What each #include "..." and <...> names.
std::vector<std::string> includes_of(const SourceFile& file);

}  // namespace thermocline::test

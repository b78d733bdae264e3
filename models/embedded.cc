#include "models/embedded.h"

// The assembler copies each file into the program as it is; 64 bytes are a cache line, and more
// than the alignment that GGUF asks for.
#define TC_EMBED(name, path)                                                  \
  __asm__(".pushsection .rodata\n.balign 64\n.global " #name "_begin\n" #name \
          "_begin:\n.incbin \"" path "\"\n.global " #name "_end\n" #name      \
          "_end:\n.byte 0\n"                                                  \
          ".popsection\n");                                                   \
  extern "C" const char name##_begin[], name##_end[]

TC_EMBED(thermocline_demo_model, THERMOCLINE_SOURCE_DIR "/models/demo/demo.gguf");
TC_EMBED(thermocline_demo_study, THERMOCLINE_SOURCE_DIR "/sim/studies/demo.toml");

namespace thermocline {

std::span<const std::byte> demo_model_bytes() {
  return std::as_bytes(std::span(thermocline_demo_model_begin, thermocline_demo_model_end));
}

std::string_view demo_study_text() {
  return {thermocline_demo_study_begin, thermocline_demo_study_end};
}

}  // namespace thermocline

// The parts of the report's page, and the small pieces of markup that they share.
//
// Goals: one function for each part, from results to markup; text from data is escaped here.
// Non-goals: the page around them (sim/report.h), tables and escaping (sim/html.h).
// Thread-safety: pure functions, except model_section, which draws with a child process.
#pragma once

#include <string>
#include <vector>

#include "sim/curves.h"
#include "sim/results.h"

namespace thermocline {

// The question, the answer, what it cannot say, and the figures to remember.
std::string answer_section(const Results& results);
// Plots, tables and execution of one model. `index` sets its drawings apart from another's;
// `problems` gets what could not be drawn, once each.
std::string model_section(const ModelResults& model, size_t index,
                          std::vector<std::string>& problems);
// What the trace offers a dynamic threshold to follow, beside what was published; empty where it
// was not counted. A part of model_section.
std::string activity_part(const ModelResults& model);
// What was executed with its hot set in the faster of two tiers; empty where nothing was.
std::string executions_part(const ModelResults& model);
// Its parts: plots over budgets, and the hot threshold over the steps of a task;
std::string figures_part(const ModelResults& model, const std::vector<Curve>& curves,
                         const std::string& id, std::vector<std::string>& problems);
// the policies at the middle budget, and folded away at all budgets;
std::string policies_part(const ModelResults& model, const std::vector<Curve>& curves);
// hit ratio and time of the plotted policies by batch, empty where there is one size;
std::string batches_part(const ModelResults& model, const std::vector<Curve>& curves);
// which share of each layer was hot, empty where not counted.
std::string layers_part(const std::vector<Curve>& curves);
// What was measured, modelled and synthetic.
std::string evidence_section(const Results& results);
// Hashes, seeds, parameters, commands.
std::string making_section(const Results& results);

// A paragraph of text, of a class of the style sheet or none.
std::string paragraph(const std::string& css, const std::string& text);
// A small label: "measured", "modelled", or where weights come from.
std::string tag(const std::string& name);
// The line of a policy in the plots, and its name; both in one, as markup.
std::string policy_name_html(const Curve& curve);
std::string milliseconds(double ms);  // in microseconds where they are fewer than 0.1

}  // namespace thermocline

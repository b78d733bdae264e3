// The tasks that run without --prompts: small Python functions of our own, in MBPP's format and
// with ids in MBPP's ranges, so that every split and the three shots work without a download.
// A test runs each solution against its tests.
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "models/prompts.h"

namespace thermocline {
namespace {

struct EmbeddedTask {
  int32_t id;
  const char* text;
  const char* code;  // begins after a line break, for the eye
  std::array<const char*, 3> tests;
};

constexpr EmbeddedTask kTasks[] = {
    {2,
     "Write a function to show a number of seconds as a clock text of the form H:MM:SS.",
     R"py(
def clock_text(seconds):
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}")py",
     {"assert clock_text(59) == \"0:00:59\"", "assert clock_text(3600) == \"1:00:00\"",
      "assert clock_text(45296) == \"12:34:56\""}},
    {3,
     "Write a function to count how often a church bell strikes from one full hour to another, "
     "both included, when it strikes 1 to 12 times at each hour of the day.",
     R"py(
def bell_strikes(first_hour, last_hour):
    strikes = 0
    for hour in range(first_hour, last_hour + 1):
        strikes += (hour - 1) % 12 + 1
    return strikes)py",
     {"assert bell_strikes(1, 3) == 6", "assert bell_strikes(12, 13) == 13",
      "assert bell_strikes(1, 24) == 156"}},
    {4,
     "Write a function to find the length of the longest run of days on which it got warmer.",
     R"py(
def longest_warming(temperatures):
    longest = run = 0
    for before, after in zip(temperatures, temperatures[1:]):
        run = run + 1 if after > before else 0
        longest = max(longest, run)
    return longest)py",
     {"assert longest_warming([3, 5, 6, 2, 4]) == 2", "assert longest_warming([9, 8, 7]) == 0",
      "assert longest_warming([1, 2, 3, 4]) == 3"}},

    {11,
     "Write a function to compute the fare of a taxi ride: a base price covers the first two "
     "kilometres, and every further kilometre begun adds the same amount.",
     R"py(
import math

def taxi_fare(kilometres, base, per_kilometre):
    further = max(0, math.ceil(kilometres - 2))
    return base + further * per_kilometre)py",
     {"assert taxi_fare(1.5, 5, 2) == 5", "assert taxi_fare(2.1, 5, 2) == 7",
      "assert taxi_fare(10, 4, 3) == 28"}},
    {12,
     "Write a function to check whether at least one seat stays empty between any two guests in "
     "a row of seats, where 'x' is a guest and '.' an empty seat.",
     R"py(
def is_spaced(row):
    return "xx" not in row)py",
     {"assert is_spaced(\"x.x..x\") == True", "assert is_spaced(\"..xx.\") == False",
      "assert is_spaced(\"\") == True"}},
    {13,
     "Write a function to name the shelf that holds the most books; of equally full shelves the "
     "one whose name comes first in the alphabet.",
     R"py(
def fullest_shelf(shelves):
    return min(shelves, key=lambda name: (-len(shelves[name]), name)))py",
     {"assert fullest_shelf({\"art\": [\"Klee\"], \"sea\": [\"Moby\", \"Nemo\"]}) == \"sea\"",
      "assert fullest_shelf({\"b\": [\"x\"], \"a\": [\"y\"]}) == \"a\"",
      "assert fullest_shelf({\"only\": []}) == \"only\""}},
    {14,
     "Write a function to join the opening hours of a shop that overlap or touch, given as pairs "
     "of start and end hour.",
     R"py(
def join_hours(periods):
    joined = []
    for start, end in sorted(periods):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined)py",
     {"assert join_hours([(8, 12), (14, 18)]) == [(8, 12), (14, 18)]",
      "assert join_hours([(13, 17), (9, 13)]) == [(9, 17)]",
      "assert join_hours([(8, 20), (10, 11), (19, 22)]) == [(8, 22)]"}},
    {15,
     "Write a function to draw a bar of stars for each count, with the labels padded to the same "
     "width.",
     R"py(
def star_bars(counts):
    width = max(len(label) for label in counts)
    lines = []
    for label, count in counts.items():
        lines.append(label.ljust(width) + " " + "*" * count)
    return lines)py",
     {"assert star_bars({\"a\": 3}) == [\"a ***\"]",
      "assert star_bars({\"mon\": 1, \"fri\": 2}) == [\"mon *\", \"fri **\"]",
      "assert star_bars({\"tea\": 2, \"coffee\": 1}) == [\"tea    **\", \"coffee *\"]"}},
    {16,
     "Write a function to write out a knitting pattern such as '2k3p', in which each number says "
     "how often the stitch after it is made.",
     R"py(
import re

def knit(pattern):
    stitches = ""
    for count, stitch in re.findall(r"(\d+)([a-z])", pattern):
        stitches += stitch * int(count)
    return stitches)py",
     {"assert knit(\"2k3p\") == \"kkppp\"", "assert knit(\"1p\") == \"p\"",
      "assert knit(\"10k1p\") == \"kkkkkkkkkkp\""}},
    {17,
     "Write a function to count the squares that a chess knight can reach in one move from a "
     "square such as 'b1' on an empty board.",
     R"py(
def knight_reach(square):
    column, row = ord(square[0]) - ord("a"), int(square[1]) - 1
    steps = [(1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2)]
    reached = 0
    for right, up in steps:
        if 0 <= column + right < 8 and 0 <= row + up < 8:
            reached += 1
    return reached)py",
     {"assert knight_reach(\"a1\") == 2", "assert knight_reach(\"b1\") == 3",
      "assert knight_reach(\"d4\") == 8"}},
    {18,
     "Write a function to split a bill in cents among guests so that no two shares differ by more "
     "than one cent, the larger shares first.",
     R"py(
def split_bill(cents, guests):
    share, left = divmod(cents, guests)
    return [share + 1] * left + [share] * (guests - left))py",
     {"assert split_bill(100, 3) == [34, 33, 33]", "assert split_bill(8, 4) == [2, 2, 2, 2]",
      "assert split_bill(5, 3) == [2, 2, 1]"}},
    {19,
     "Write a function to find the way back for a walk given as compass letters N, E, S and W.",
     R"py(
def way_back(walk):
    opposite = {"N": "S", "S": "N", "E": "W", "W": "E"}
    return "".join(opposite[step] for step in reversed(walk)))py",
     {"assert way_back(\"NNE\") == \"WSS\"", "assert way_back(\"\") == \"\"",
      "assert way_back(\"ESWN\") == \"SENW\""}},
    {20,
     "Write a function to tell the colour of a traffic light at a given second, when it shows "
     "green, yellow and red in turn for given times and starts with green.",
     R"py(
def light_at(second, green, yellow, red):
    phase = second % (green + yellow + red)
    if phase < green:
        return "green"
    if phase < green + yellow:
        return "yellow"
    return "red")py",
     {"assert light_at(0, 30, 3, 27) == \"green\"", "assert light_at(31, 30, 3, 27) == \"yellow\"",
      "assert light_at(119, 30, 3, 27) == \"red\""}},

    {511,
     "Write a function to compute the check digit of a parcel number: its digits weigh 3 and 1 in "
     "turn from the left, and the digit fills the sum up to a multiple of ten.",
     R"py(
def parcel_check_digit(number):
    total = 0
    for position, digit in enumerate(number):
        total += int(digit) * (3 if position % 2 == 0 else 1)
    return -total % 10)py",
     {"assert parcel_check_digit(\"0\") == 0", "assert parcel_check_digit(\"123\") == 6",
      "assert parcel_check_digit(\"9999\") == 8"}},
    {512,
     "Write a function to find the first day, counted from 1, on which a shop sells more than it "
     "has, given its stock and the deliveries and sales of each day; 0 if that never happens.",
     R"py(
def first_shortage(stock, days):
    for day, (delivered, sold) in enumerate(days, start=1):
        stock += delivered - sold
        if stock < 0:
            return day
    return 0)py",
     {"assert first_shortage(5, [(0, 3), (0, 3)]) == 2", "assert first_shortage(1, [(0, 1)]) == 0",
      "assert first_shortage(0, [(2, 1), (0, 1), (4, 5)]) == 3"}},

    {601,
     "Write a function to shorten a sorted list of page numbers to a text of ranges such as "
     "'1-3, 7'.",
     R"py(
def page_ranges(pages):
    runs = []
    for page in pages:
        if runs and runs[-1][1] == page - 1:
            runs[-1][1] = page
        else:
            runs.append([page, page])
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in runs))py",
     {"assert page_ranges([1, 2, 3, 7]) == \"1-3, 7\"", "assert page_ranges([4]) == \"4\"",
      "assert page_ranges([1, 3, 4, 9, 10]) == \"1, 3-4, 9-10\""}},
    {602,
     "Write a function to slide the tiles of a row to the left, where 0 is a gap and two equal "
     "tiles that meet become one of twice the value, each tile at most once.",
     R"py(
def slide_row(row):
    slid, may_join = [], False
    for tile in row:
        if tile == 0:
            continue
        if may_join and slid[-1] == tile:
            slid[-1] *= 2
            may_join = False
        else:
            slid.append(tile)
            may_join = True
    return slid + [0] * (len(row) - len(slid)))py",
     {"assert slide_row([2, 0, 2, 4]) == [4, 4, 0, 0]",
      "assert slide_row([2, 2, 2, 2]) == [4, 4, 0, 0]",
      "assert slide_row([0, 0, 8, 4]) == [8, 4, 0, 0]"}},
    {603,
     "Write a function to scale the amounts of a recipe from one number of guests to another, "
     "rounded up to whole units.",
     R"py(
def scale_recipe(amounts, guests_before, guests_after):
    scaled = {}
    for ingredient, amount in amounts.items():
        scaled[ingredient] = -(-amount * guests_after // guests_before)
    return scaled)py",
     {"assert scale_recipe({\"eggs\": 2}, 4, 6) == {\"eggs\": 3}",
      "assert scale_recipe({\"eggs\": 3, \"flour\": 250}, 4, 2) == {\"eggs\": 2, \"flour\": 125}",
      "assert scale_recipe({}, 1, 5) == {}"}},
    {604,
     "Write a function to find the height of the tallest plant in each garden bed, with 0 for an "
     "empty bed.",
     R"py(
def tallest_plants(beds):
    return [max(bed, default=0) for bed in beds])py",
     {"assert tallest_plants([[30, 45], [12]]) == [45, 12]",
      "assert tallest_plants([[], [7, 3]]) == [0, 7]", "assert tallest_plants([]) == []"}},
    {605,
     "Write a function to check whether a word can be laid with the given letter tiles, where '_' "
     "is a tile that stands for any letter.",
     R"py(
from collections import Counter

def can_lay(word, tiles):
    have = Counter(tiles)
    missing = Counter(word) - have
    return sum(missing.values()) <= have["_"])py",
     {"assert can_lay(\"reef\", \"feer\") == True", "assert can_lay(\"reef\", \"fer_\") == True",
      "assert can_lay(\"reef\", \"f__\") == False"}},
    {606,
     "Write a function to add up what a meter counted, given its readings in order, when a "
     "reading below the one before means that the meter began again at zero.",
     R"py(
def metered_total(readings):
    total = 0
    for before, after in zip(readings, readings[1:]):
        total += after - before if after >= before else after
    return total)py",
     {"assert metered_total([5, 8, 12]) == 7", "assert metered_total([5, 8, 2, 4]) == 7",
      "assert metered_total([9]) == 0"}},
    {607,
     "Write a function to seat guests by taking them in turn from the front and from the back of "
     "a list.",
     R"py(
from collections import deque

def seat_in_turn(guests):
    waiting, seated = deque(guests), []
    while waiting:
        seated.append(waiting.popleft())
        if waiting:
            seated.append(waiting.pop())
    return seated)py",
     {"assert seat_in_turn([\"a\", \"b\", \"c\", \"d\"]) == [\"a\", \"d\", \"b\", \"c\"]",
      "assert seat_in_turn([1, 2, 3]) == [1, 3, 2]", "assert seat_in_turn([]) == []"}},
};

std::string as_jsonl() {
  std::string lines;
  for (const EmbeddedTask& task : kTasks) {
    const nlohmann::ordered_json line = {
        {"text", task.text},       {"code", task.code + 1},
        {"task_id", task.id},      {"test_setup_code", ""},
        {"test_list", task.tests}, {"challenge_test_list", nlohmann::json::array()}};
    lines += line.dump() + "\n";
  }
  return lines;
}

}  // namespace

std::string_view embedded_tasks_jsonl() {
  static const std::string lines = as_jsonl();
  return lines;
}

}  // namespace thermocline

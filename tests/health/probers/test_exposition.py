"""Reading Prometheus' text format through a preset."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.health.probers.exposition import PRESETS, read_counters

PAGE = """\
# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 12.5
process_resident_memory_bytes 1.048576e+08
process_start_time_seconds 1.7e+09
python_gc_objects_collected_total{generation="0"} 512.0
# TYPE django_http_responses_total_by_status_view_method_total counter
django_http_responses_total_by_status_view_method_total{method="GET",status="200",view="orders"} 90.0
django_http_responses_total_by_status_view_method_total{method="GET",status="500",view="orders"} 8.0
django_http_responses_total_by_status_view_method_total{method="GET",status="503",view="cart"} 2.0
django_http_responses_total_by_status_view_method_total{method="GET",status="503",view="health"} 7000.0
django_http_responses_total_by_status_total{status="200"} 7090.0
"""


def test_the_django_preset_counts_what_users_saw_and_leaves_probes_out():
    counters = read_counters(PAGE, PRESETS["django"])

    assert (counters.requests, counters.errors) == (100, 10)
    assert (counters.cpu_seconds, counters.memory_bytes, counters.start_time) == (12.5, 104_857_600, 1.7e9)


def test_without_the_view_label_all_answers_count():
    by_status = "django_http_responses_total_by_status_total"
    page = f'{by_status}{{status="200"}} 30\n{by_status}{{status="502"}} 3\n'

    counters = read_counters(page, PRESETS["django"])

    assert (counters.requests, counters.errors) == (33, 3)


def test_an_application_that_served_nothing_yet_counts_zero_not_unknown():
    counters = read_counters("process_cpu_seconds_total 1\n", PRESETS["django"])

    assert (counters.requests, counters.errors) == (0, 0)


def test_only_probes_so_far_counts_zero_requests():
    page = 'django_http_responses_total_by_status_view_method_total{status="200",view="ready",method="GET"} 9\n'

    assert read_counters(page, PRESETS["django"]).requests == 0


def test_the_plain_preset_measures_no_requests():
    counters = read_counters(PAGE, PRESETS["process"])

    assert counters.requests is None
    assert counters.cpu_seconds == 12.5


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e300"])
def test_a_figure_that_cannot_be_is_not_measured(value):
    counters = read_counters(f"process_resident_memory_bytes {value}\n", PRESETS["process"])

    assert counters.memory_bytes is None


def test_a_name_that_only_begins_like_a_known_one_is_not_taken():
    assert read_counters("process_cpu_seconds_total_other 5\n", PRESETS["process"]).cpu_seconds is None


names = st.sampled_from(sorted(PRESETS["django"].names()))


@given(names, st.text(st.sampled_from('{}",=\\ x1.\n#NaInf+-e') | st.characters(), max_size=60))
@example("process_cpu_seconds_total", '{, =1}x"}')
@example("process_cpu_seconds_total", "{" + "a," * 30)
def test_a_malformed_line_of_a_known_metric_is_refused_with_value_error(name, text):
    with contextlib.suppress(ValueError):
        read_counters(name + text + "\n", PRESETS["django"])


def test_a_line_or_page_that_would_keep_the_parser_busy_is_refused():
    labels = ",".join(f'l{n}="v"' for n in range(1000))
    with pytest.raises(ValueError, match="larger"):
        read_counters(f"process_cpu_seconds_total{{{labels}}} 1\n", PRESETS["django"])
    with pytest.raises(ValueError, match="larger"):
        read_counters("process_cpu_seconds_total 1\n" * 20_001, PRESETS["django"])


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_with_value_error(text):
    with contextlib.suppress(ValueError):
        read_counters(text + "\nprocess_cpu_seconds_total " + text, PRESETS["django"])

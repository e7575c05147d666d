package service

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MetricInfo documents one metric.
type MetricInfo struct {
	Name   string
	Kind   string // "counter", "gauge" or "histogram"
	Text   string
	Labels []string
}

// Metrics returns the metrics that a Handler registers, from the same rows
// from which it makes them.
func Metrics() []MetricInfo {
	return append(streamMetrics(), requestMetrics()...)
}

func requestMetrics() []MetricInfo {
	return []MetricInfo{
		{"muster_http_requests_total", "counter", "REST requests answered, by route of the table (other: none matched) and HTTP status.", []string{"route", "code"}},
		{"muster_http_seconds", "histogram", "Time from a REST request's headers to its answer, waits for devices included, in seconds.", []string{"route"}},
	}
}

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	rows := requestMetrics()
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: rows[0].Name, Help: rows[0].Text}, rows[0].Labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: rows[1].Name, Help: rows[1].Text,
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30, 300},
		}, rows[1].Labels),
	}
	if registry != nil {
		registry.MustRegister(m.requests, m.seconds)
	}
	return m
}

func (m *metrics) observe(route string, status int, d time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(d.Seconds())
}

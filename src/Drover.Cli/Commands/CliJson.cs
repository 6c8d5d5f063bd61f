using System.Text.Json.Serialization;
using Drover.Orchestrator.Backlog;

namespace Drover.Cli.Commands;

/// <summary><c>init --json</c>.</summary>
internal sealed record InitModel(string Root, string Project, string Target, string? TestCommand, string Database, bool Created, IReadOnlyList<string> Hooks);

/// <summary><c>config show --json</c>.</summary>
internal sealed record ConfigModel(string Root, string Project, ConfigDatabase Database, IReadOnlyList<Orchestrator.Settings.ShownSetting> Settings);

/// <summary>The database in force and what decided it.</summary>
internal sealed record ConfigDatabase(string Path, string Source);

/// <summary><c>config set --json</c> and <c>config unset --json</c>.</summary>
internal sealed record ConfigChange(string Key, string? Value, string Source);

/// <summary><c>doctor --json</c>.</summary>
internal sealed record DoctorModel(bool Ok, IReadOnlyList<DoctorCheck> Checks);

/// <summary>One thing that was looked at. <c>State</c> is <c>ok</c>, <c>warning</c> or <c>problem</c>.</summary>
internal sealed record DoctorCheck(string Name, string State, string Text);

/// <summary><c>run --dry-run --json</c>: what a run would do.</summary>
internal sealed record PlanModel(string Target, int Workers, string Agent, string? TestCommand, string? Epic, IReadOnlyList<string> Ready, IReadOnlyList<PlanWaits> Waiting);

/// <summary>A task that would not start now, and why.</summary>
internal sealed record PlanWaits(string Task, string Status, string? Reason);

/// <summary><c>run --json</c>, <c>resume --json</c>: how the run ended. <c>Epic</c>: the only epic it was for, or null; counts and tasks are that epic's.</summary>
internal sealed record RunModel(string Run, string Outcome, int ExitCode, string Target, string? Epic, IReadOnlyDictionary<string, int> Counts, IReadOnlyList<StatusTask> Tasks);

/// <summary><c>demo --json</c>.</summary>
internal sealed record DemoModel(string Folder, bool Crashed, int Tasks, int Landed, IReadOnlyList<string> Log, int ExitCode);

/// <summary>The JSON of commands that is not the backlog's own.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(InitModel))]
[JsonSerializable(typeof(ConfigModel))]
[JsonSerializable(typeof(ConfigChange))]
[JsonSerializable(typeof(DoctorModel))]
[JsonSerializable(typeof(PlanModel))]
[JsonSerializable(typeof(RunModel))]
[JsonSerializable(typeof(DemoModel))]
internal sealed partial class CliJson : JsonSerializerContext;

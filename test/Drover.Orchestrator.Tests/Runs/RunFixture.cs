using System.Diagnostics;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.Orchestrator.Settings;
using Drover.TestKit;
using Drover.Workflows;
using Drover.Workflows.Sqlite;

namespace Drover.Orchestrator.Tests.Runs;

/// <summary>A real repository with a backlog, and runs over it in this process with the fake agent.</summary>
public sealed class RunFixture : IAsyncDisposable
{
    private readonly TempFolder _folder;
    private readonly Dictionary<string, string?> _environment = new() { ["PATH"] = Environment.GetEnvironmentVariable("PATH") };

    public RunFixture(string branch = "main", string testCommand = "true", string? folder = null)
    {
        _folder = new TempFolder(folder ?? "repo");
        Git("init", "-q", "-b", branch);
        Git("config", "user.name", "A User");
        Git("config", "user.email", "user@example.org");
        File.WriteAllText(Path.Combine(Root, "README.md"), "hello\n");
        File.WriteAllText(Path.Combine(Root, "shared.txt"), "line 1\nline 2\nline 3\n");
        Git("add", "-A");
        Git("commit", "-q", "-m", "Begin");
        Directory.CreateDirectory(Path.Combine(Root, ".drover"));
        Git("config", "core.excludesFile", Path.Combine(Root, ".git", "test-excludes"));
        File.AppendAllText(Path.Combine(Root, ".git", "info", "exclude"), ".drover/\n");
        Project = ProjectSettings.Create(Root, new Dictionary<string, string>
        {
            ["testCommand"] = testCommand,
            ["agent.type"] = "fake",
        });
        Target = branch;
    }

    public string Root => _folder.Path;

    public string Project { get; }

    public string Target { get; }

    public string Git(params string[] arguments)
    {
        var start = new ProcessStartInfo("git") { WorkingDirectory = Root, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        using Process git = Process.Start(start)!;
        Task<string> error = git.StandardError.ReadToEndAsync();
        string output = git.StandardOutput.ReadToEnd();
        git.WaitForExit();
        return git.ExitCode == 0 ? output.TrimEnd('\n') : throw new InvalidOperationException($"git {string.Join(' ', arguments)}: {error.Result}");
    }

    public void Set(string key, string value) => ProjectSettings.Set(Root, key, value);

    public async Task<T> BacklogAsync<T>(Func<WorkflowTransaction, T> work)
    {
        var options = new WorkflowEngineOptions { Dialect = new SqliteDialect(Path.Combine(Root, ".drover", "drover.db")) };
        options.Migrations.Add(BacklogSchema.Migrations);
        await using WorkflowClient client = await WorkflowClient.ConnectAsync(options);
        return await client.TransactAsync(work);
    }

    public Task<string> AddAsync(string title, string script = "", string[]? blockedBy = null, string? epic = null, int priority = 0, string? parent = null, string? test = null) =>
        BacklogAsync(tx => Board.AddTask(tx.Session, Project, new NewTask
        {
            Title = title,
            Description = script,
            BlockedBy = blockedBy ?? [],
            Epic = epic,
            Priority = priority,
            Parent = parent,
            TestCommand = test,
        }).Id);

    public Task<RunHost> StartAsync(RunOptions? given = null) => RunHost.StartAsync(new RunHostOptions
    {
        Directory = Root,
        Settings = ProjectSettings.Load(Root, _environment),
        Dialect = new SqliteDialect(Path.Combine(Root, ".drover", "drover.db")),
        Given = given ?? new(),
    });

    public async Task<RunReport> RunAsync(RunOptions? given = null)
    {
        await using RunHost host = await StartAsync(given);
        return await host.Completion.WaitAsync(TimeSpan.FromMinutes(1));
    }

    public Task<TaskRow> TaskAsync(string id) => BacklogAsync(tx => Board.Get(tx.Session, Project, id));

    /// <summary>Task ids of the landings on the target's first-parent line, oldest first.</summary>
    public IReadOnlyList<string> Landed() => [.. Git("log", "--first-parent", "--reverse", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2C)", Target)
        .Split('\n', StringSplitOptions.RemoveEmptyEntries)];

    public ValueTask DisposeAsync()
    {
        _folder.Dispose();
        return ValueTask.CompletedTask;
    }
}

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

    /// <summary>A variable of the environment in which the next run is started, as far as settings come from it.</summary>
    public void SetVariable(string name, string value) => _environment[name] = value;

    /// <summary>A file in the state folder: agents, gates and tests signal each other through such files.</summary>
    public string State(string name) => Path.Combine(Root, ".drover", name);

    /// <summary>Paths that git ignores in the checkout and in every worktree.</summary>
    public void Ignore(params string[] patterns) => File.AppendAllLines(Path.Combine(Root, ".git", "info", "exclude"), patterns);

    /// <summary>
    /// Makes a shell script the agent. It finds the prompt in <c>$prompt</c>, the state folder in <c>$state</c>, and can wait:
    /// <c>until_file NAME</c> for a file in the state folder, <c>until_moved</c> for the first commit on the target.
    /// </summary>
    public void Script(string body)
    {
        string path = State("agent.sh");
        File.WriteAllText(path, $$"""
            #!/bin/sh
            prompt=$(cat)
            state='{{Path.Combine(Root, ".drover")}}'
            until_file() { until [ -e "$state/$1" ]; do sleep 0.02; done; }
            until_moved() { until [ "$(git rev-parse {{Target}})" != "$(git rev-parse HEAD)" ]; do sleep 0.02; done; }
            {{body}}

            """);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Set("agent.type", "command");
        Set("agent.path", path);
    }

    /// <summary>No agent, gate or keeper of this repository is left on the machine.</summary>
    public Task NoSurvivorAsync() => ProcessScan.NoneAsync(Root, "no process survives");

    public async Task<T> BacklogAsync<T>(Func<WorkflowTransaction, T> work)
    {
        var options = new WorkflowEngineOptions { Dialect = new SqliteDialect(Path.Combine(Root, ".drover", "drover.db")) };
        options.Migrations.Add(BacklogSchema.Migrations);
        (options.ApplicationName, options.ApplicationVersion) = (Protocol.Application(Project), Protocol.Version);
        options.UseJson(RunJson.Default);
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

    public async ValueTask DisposeAsync()
    {
        try
        {
            // Every test of a run ends with this proof, whatever it was about.
            await NoSurvivorAsync();
        }
        finally
        {
            _folder.Dispose();
        }
    }
}

using System.Security.Cryptography;
using System.Text;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Gates;
using Drover.Orchestrator.Git;
using Drover.Orchestrator.Settings;
using Drover.Workflows;

namespace Drover.Orchestrator.Runs;

/// <summary>What the steps of a run use: the repository, the settings, the agent, and the database. One per process.</summary>
internal sealed class RunServices : IServiceProvider
{
    public RunServices(Repository repository, ProjectSettings settings, KeeperCommand keeper, TimeProvider time)
    {
        (Repository, Settings, Keeper, Time) = (repository, settings, keeper, time);
        string root = Path.GetFullPath(Path.Combine(repository.Root, settings.WorktreeRoot));
        Worktrees = new Worktrees(repository, time, root);
        Commits = new WorkCommit(repository, time);
        Landing = new Landing(repository, time);
        Checkout = new CheckoutSync(repository, time);
        Control = new ControlFiles(repository);
        GateFolder = new GateWorktree(repository, time, root);
        ContainedEnvironment surroundings = ContainedEnvironment.FromProcess([.. settings.EnvironmentPass, "DROVER_ENV"]);
        // Agents, set-up and gates learn the environment's name, also where it is the default.
        Environment = surroundings with
        {
            Source = new Dictionary<string, string>(surroundings.Source) { ["DROVER_ENV"] = settings.EnvironmentName },
            CopiedSecrets = CopiedSecrets.In(repository.Root, settings.WorktreeCopy),
        };
        Gates = new GateDesk(this);
        Live = new LiveView(time);
        Tasks = new TaskSteps(this);
        Lane = new LaneSteps(this);
    }

    public Repository Repository { get; }
    public ProjectSettings Settings { get; }
    public KeeperCommand Keeper { get; }
    public TimeProvider Time { get; }
    public Worktrees Worktrees { get; }
    public WorkCommit Commits { get; }
    public Landing Landing { get; }
    public CheckoutSync Checkout { get; }
    public ControlFiles Control { get; }
    public GateWorktree GateFolder { get; }
    public ContainedEnvironment Environment { get; }
    public GateDesk Gates { get; }
    public TaskSteps Tasks { get; }
    public LaneSteps Lane { get; }
    public LiveView Live { get; }

    /// <summary>The agent of this run; set before the engine starts.</summary>
    public ICodingAgent Agent { get; set; } = null!;

    /// <summary>The engine's client; set before the engine starts.</summary>
    public WorkflowClient Client { get; set; } = null!;

    public string ExecutorId { get; set; } = "";

    public string Project => Settings.Project;

    public static RunServices From(IServiceProvider services) => (RunServices)services.GetService(typeof(RunServices))!;

    public object? GetService(Type serviceType) => serviceType == typeof(RunServices) ? this : null;

    /// <summary>Rows hold repository-relative paths.</summary>
    public string RelativeWorktree(TaskInput input) => Path.GetRelativePath(Repository.Root, Worktrees.PathOf(TaskSteps.Name(input)));

    public string State(string folder, string file) => Path.Combine(Repository.StateDirectory, folder, file);

    /// <summary>The command that decides whether a tree may land.</summary>
    public GateCommand GateCommandFor(string? taskCommand) => GateCommand.Parse(taskCommand ?? Settings.TestCommand
        ?? throw new DroverException(ErrorCode.InvalidInput, "no test command is set: `drover config set testCommand <command>` (`true` accepts everything)"));

    public static string Digest(params ReadOnlySpan<string> parts) =>
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\0', parts))))[..32];
}
